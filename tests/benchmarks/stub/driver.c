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
