/* What Triton's launcher asks of NVIDIA's driver, answered like an H200's; nothing runs. A launch that the device would
   refuse is refused, the others are written to the file that STUB_LAUNCHES names. What is not here answers 0. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; };
struct function { char name[256]; int shared; };

enum { INVALID = 1, SHARED_OPTIN = 97, SHARED = 8, PROCESSORS = 16, WARP = 10, REGISTERS = 12, MOST = 232448 };

int cuGetErrorString(int code, const char **text) { *text = code == INVALID ? "invalid argument" : "error"; return 0; }
int cuDeviceGet(int *device, int n) { *device = n; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuPointerGetAttribute(void *value, int what, uint64_t pointer) { *(uint64_t *)value = pointer; return 0; }
int cuModuleLoadData(void **module, const void *image) { *module = malloc(1); return 0; }

int cuDeviceGetAttribute(int *value, int what, int device) {
    *value = what == SHARED_OPTIN ? MOST : what == SHARED ? 49152 : what == PROCESSORS ? 132 : what == WARP ? 32
           : what == REGISTERS ? 65536 : 1 << 20;
    return 0;
}

int cuModuleGetFunction(struct function **function, void *module, const char *name) {
    *function = calloc(1, sizeof **function);
    strncpy((*function)->name, name, sizeof (*function)->name - 1);
    return 0;
}

int cuFuncGetAttribute(int *value, int what, void *function) { *value = what == 0 ? 1024 : 0; return 0; }

int cuFuncSetAttribute(struct function *function, int what, int value) {
    if (what != SHARED) return INVALID; /* an attribute of later drivers */
    function->shared = value;
    return 0;
}

/* A tensor map that says what was asked for: address, type, swizzle and rank, then dimensions, strides and box. */
int cuTensorMapEncodeTiled(uint64_t map[16], int type, unsigned rank, void *address, const uint64_t *dims,
                           const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave,
                           int swizzle, int promotion, int fill) {
    if ((uint64_t)address % 16 || rank < 1 || rank > 5) return INVALID;
    memset(map, 0, 128);
    map[0] = (uint64_t)address;
    map[1] = type | swizzle << 8 | rank << 16 | interleave << 24 | (uint64_t)promotion << 32 | (uint64_t)fill << 40;
    for (unsigned n = 0; n < rank; n++) {
        if (dims[n] < 1 || dims[n] > 1ull << 32 || box[n] < 1 || box[n] > 256 || steps[n] != 1) return INVALID;
        if (n + 1 < rank && (strides[n] % 16 || strides[n] >= 1ull << 40)) return INVALID;
        ((uint32_t *)(map + 2))[n] = dims[n] - 1;
        ((uint16_t *)(map + 14))[n] = box[n];
        if (n + 1 < rank) map[6 + n] = strides[n];
    }
    return 0;
}

int cuLaunchKernelEx(const struct config *config, struct function *function, void **arguments, void **extra) {
    const unsigned *grid = config->grid, *block = config->block;
    unsigned allowed = function->shared > 49152 ? function->shared : 49152;
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > INT32_MAX || grid[1] > 65535 || grid[2] > 65535) return INVALID;
    if (block[0] > 1024 || config->shared > MOST || config->shared > allowed) return INVALID;
    static FILE *file;
    if (!file) file = fopen(getenv("STUB_LAUNCHES"), "a");
    fprintf(file, "%s\n", function->name);
    return fflush(file);
}
