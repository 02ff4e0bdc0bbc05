/* What Triton's launcher asks of NVIDIA's driver, answered like an H100's; nothing runs. What the device would refuse is
   refused, and the file that STUB_COMPLAINTS names says why; launches are written to the one that STUB_LAUNCHES names.
   Sizes of arguments, threads, registers and shared memory are those of the binary. Where `runtime.c` allocates, each
   address has to lie in memory that is not freed. What is not here answers 0. */
#include <cuda.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "state.h"

enum { MOST = 232448, REGISTERS = 65536, RESERVED = 1024, MARK = 0x57b }; /* RESERVED: shared memory of the system */
enum { PARAMETER = 0x17, BYTES = 0x19, MOST_THREADS = 0x05, THREADS = 0x10 }; /* what .nv.info says of a kernel */

struct parameter { int place, offset, size; };
struct function {
    char name[NAME];
    struct parameter parameters[PARAMETERS];
    int count, bytes, most_threads, threads, registers, statics, shared;
};
struct map { uint64_t address, bytes, mark, what; }; /* of a tensor map, whose real 128 bytes nobody documents */

#define REFUSE(code, ...) do { stub_say(__VA_ARGS__); return code; } while (0)

CUresult cuGetErrorString(CUresult code, const char **text) {
    *text = code == BAD_VALUE ? "invalid argument" : code == BAD_ADDRESS ? "an illegal memory access was encountered"
          : code == TOO_MANY ? "too many resources requested for launch"
          : code == CAPTURED ? "operation not permitted when stream is capturing" : "error";
    return 0;
}
CUresult cuDeviceGet(CUdevice *device, int n) { *device = n; return 0; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = (void *)1; return 0; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return 0; }

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute what, CUdeviceptr pointer) {
    if (stub_live(pointer) != 1) REFUSE(BAD_VALUE, "asked of %llx, which is %s", pointer, stub_live(pointer) ? "freed" : "of the host");
    *(uint64_t *)value = pointer;
    return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice device) {
    switch (what) {
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = MOST; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 49152; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = REGISTERS; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    default: *value = 1 << 20;
    }
    return 0;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    int error = stub_unsafe("cuModuleLoadData");
    if (error) return error;
    const Elf64_Ehdr *head = image;
    if (memcmp(head->e_ident, ELFMAG, SELFMAG)) REFUSE(200, "a module that is no binary");
    size_t sections = head->e_shoff + (size_t)head->e_shnum * head->e_shentsize;
    size_t programs = head->e_phoff + (size_t)head->e_phnum * head->e_phentsize;
    size_t bytes = sections > programs ? sections : programs;
    *module = memcpy(malloc(bytes), image, bytes);
    return 0;
}

/* Entries of a kernel's .nv.info: a format, what it is, and two bytes, or the number of bytes that follow. */
static void described(struct function *function, const unsigned char *at, const unsigned char *end) {
    while (at + 4 <= end) {
        int format = at[0], what = at[1], value = at[2] | at[3] << 8;
        at += 4;
        if (format == 4) {
            const uint32_t *words = (const void *)at;
            if (what == PARAMETER && function->count < PARAMETERS)
                function->parameters[function->count++] = (struct parameter){words[1] & 0xffff, words[1] >> 16, words[2] >> 18};
            if (what == MOST_THREADS) function->most_threads = words[0];
            if (what == THREADS) function->threads = words[0];
            at += value;
        } else if (format == 3 && what == BYTES) {
            function->bytes = value;
        }
    }
}

CUresult cuModuleGetFunction(CUfunction *found, CUmodule module, const char *name) {
    const unsigned char *image = (const void *)module;
    const Elf64_Ehdr *head = (const void *)image;
    const Elf64_Shdr *sections = (const void *)(image + head->e_shoff);
    const char *names = (const char *)image + sections[head->e_shstrndx].sh_offset;
    struct function *function = calloc(1, sizeof *function);
    int is_there = 0, end = 0;
    strncpy(function->name, name, NAME - 1);
    for (int n = 0; n < head->e_shnum; n++) {
        const char *own = names + sections[n].sh_name;
        size_t before = strlen(own) - strlen(name);
        if (strlen(own) <= strlen(name) || strcmp(own + before, name)) continue;
        if (before == 6 && !strncmp(own, ".text.", 6)) is_there = 1, function->registers = sections[n].sh_info >> 24;
        if (before == 11 && !strncmp(own, ".nv.shared.", 11)) function->statics = sections[n].sh_size - RESERVED;
        if (before == 9 && !strncmp(own, ".nv.info.", 9))
            described(function, image + sections[n].sh_offset, image + sections[n].sh_offset + sections[n].sh_size);
    }
    if (function->statics < 0) function->statics = 0;
    if (!is_there) REFUSE(500, "no kernel %s in its module", name);
    for (int n = 0; n < function->count; n++) {
        int stop = function->parameters[n].offset + function->parameters[n].size;
        end = stop > end ? stop : end;
    }
    if (end != function->bytes) REFUSE(200, "%s: arguments of %d bytes end at %d", name, function->bytes, end);
    *found = (void *)function;
    return 0;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute what, CUfunction given) {
    struct function *function = (void *)given;
    *value = what == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? (function->most_threads ? function->most_threads : 1024)
           : what == CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES ? function->statics
           : what == CU_FUNC_ATTRIBUTE_NUM_REGS ? function->registers : 0;
    return 0;
}

CUresult cuFuncSetAttribute(CUfunction given, CUfunction_attribute what, int value) {
    struct function *function = (void *)given;
    if (what != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return BAD_VALUE; /* an attribute of later drivers */
    if (value + function->statics > MOST) REFUSE(BAD_VALUE, "%s: %d bytes of shared memory", function->name, value);
    function->shared = value;
    return 0;
}

/* Its conditions as the driver's manual has them. A stride that is no multiple of the one before is taken. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *made, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
    static const int widths[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    struct map *map = (void *)made;
    if (type >= sizeof widths / sizeof *widths) REFUSE(BAD_VALUE, "tensor map: type %d", type);
    uint64_t width = widths[type], inner = box[0] * width, end = width;
    if ((uint64_t)made % 64) REFUSE(BAD_VALUE, "tensor map: its own place %p", (void *)made);
    if ((uint64_t)address % 16) REFUSE(BAD_VALUE, "tensor map: address %p", address);
    if (interleave || rank < 1 || rank > 5) REFUSE(BAD_VALUE, "tensor map: rank %u, interleave %d", rank, interleave);
    if (inner % 16 || (swizzle && inner > 16u << swizzle)) REFUSE(BAD_VALUE, "tensor map: rows of %llu bytes, swizzle %d", (unsigned long long)inner, swizzle);
    if (fill && (type < CU_TENSOR_MAP_DATA_TYPE_FLOAT16)) REFUSE(BAD_VALUE, "tensor map: NaN for whole numbers");
    for (unsigned n = 0; n < rank; n++) {
        if (dims[n] < 1 || dims[n] > 1ull << 32) REFUSE(BAD_VALUE, "tensor map: dimension %u is %llu", n, (unsigned long long)dims[n]);
        if (box[n] < 1 || box[n] > 256 || steps[n] < 1 || steps[n] > 8) REFUSE(BAD_VALUE, "tensor map: box %u is %u", n, box[n]);
        if (n + 1 < rank && (strides[n] % 16 || strides[n] >= 1ull << 40)) REFUSE(BAD_VALUE, "tensor map: stride %u is %llu", n, (unsigned long long)strides[n]);
        end += (dims[n] - 1) * (n ? strides[n - 1] : width);
    }
    if (!stub_within((uint64_t)address, end)) REFUSE(BAD_ADDRESS, "tensor map: %llu bytes at %p", (unsigned long long)end, address);
    memset(made, 0, sizeof *made);
    *map = (struct map){(uint64_t)address, end, MARK, type | swizzle << 8 | rank << 16 | (uint64_t)promotion << 32};
    /* so that maps of other dimensions differ */
    for (unsigned n = 0; n < rank; n++) {
        ((uint32_t *)(map + 1))[n] = dims[n] - 1;
        ((uint16_t *)(map + 1))[10 + n] = box[n];
        if (n + 1 < rank) ((uint64_t *)(map + 1))[4 + n] = strides[n];
    }
    return 0;
}

static int wrong(const struct node *node, const char *when) {
    for (int n = 0; n < node->count; n++) {
        uint64_t value = node->values[n];
        if (stub_is_device(value) && stub_live(value) != 1)
            REFUSE(BAD_ADDRESS, "%s: argument %d, %llx, is %s%s", node->name, n, (unsigned long long)value, stub_live(value) ? "freed" : "in no memory", when);
    }
    return 0;
}

int stub_replayed(struct graph *graph) {
    for (struct node *node = graph->first; node; node = node->next)
        if (wrong(node, ", in a graph that is replayed")) return BAD_ADDRESS;
    return 0;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction given, void **arguments, void **extra) {
    struct function *function = (void *)given;
    unsigned x = config->gridDimX, y = config->gridDimY, z = config->gridDimZ, shared = config->sharedMemBytes;
    unsigned threads = config->blockDimX * config->blockDimY * config->blockDimZ;
    unsigned allowed = function->shared > 49152 ? function->shared : 49152;
    unsigned of_warp = (function->registers * 32 + 255) / 256 * 256;
    const char *name = function->name;
    if (!x || !y || !z || x > INT32_MAX || y > 65535 || z > 65535) REFUSE(BAD_VALUE, "%s: a grid of %u, %u, %u", name, x, y, z);
    if (threads > 1024 || (function->most_threads && threads > (unsigned)function->most_threads)
        || (function->threads && threads != (unsigned)function->threads))
        REFUSE(BAD_VALUE, "%s: %u threads, of %d", name, threads, function->threads);
    if (shared > allowed || shared + function->statics > MOST) REFUSE(BAD_VALUE, "%s: %u bytes of shared memory", name, shared);
    if (of_warp * ((threads + 31) / 32) > REGISTERS) REFUSE(TOO_MANY, "%s: %d registers, %u threads", name, function->registers, threads);
    for (unsigned n = 0; n < config->numAttrs; n++)
        if (config->attrs[n].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) REFUSE(BAD_VALUE, "%s: all programs at once", name);
    struct node node = {.count = function->count};
    strncpy(node.name, name, NAME - 1);
    for (int n = 0; n < function->count; n++) {
        struct parameter own = function->parameters[n];
        if (own.size == 8) memcpy(&node.values[own.place], arguments[own.place], 8);
        if (own.size != sizeof(CUtensorMap)) continue;
        struct map *map = arguments[own.place];
        if (map->mark != MARK) REFUSE(BAD_VALUE, "%s: argument %d is no tensor map", name, own.place);
        if (!stub_within(map->address, map->bytes)) REFUSE(BAD_ADDRESS, "%s: the memory of tensor map %d is freed", name, own.place);
        node.values[own.place] = map->address;
    }
    if (wrong(&node, "")) return BAD_ADDRESS;
    int how = stub_noted((void *)config->hStream, &node);
    if (how > 1) return how;
    static FILE *file;
    if (!file) file = fopen(getenv("STUB_LAUNCHES") ? getenv("STUB_LAUNCHES") : "/dev/null", "a");
    fprintf(file, "%s\n", name);
    return fflush(file);
}
