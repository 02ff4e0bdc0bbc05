/* What torch asks of CUDA's runtime, answered like an H100's, so that torch's own allocator, streams and graphs work:
   copies are made, torch's kernels do nothing. A capture is refused what the runtime's manual says it is refused. What
   is not here answers 0. Include files are of the version that torch was built with. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "state.h"

struct event { double at; struct stream *capture; long id; int is_recorded; };
static __thread int last;
static long captures;

#define ANSWER(...) do { int found_ = (__VA_ARGS__); if (found_) last = found_; return found_; } while (0)
#define OF(stream) ((struct stream *)(stream))
static int is_capturing(cudaStream_t stream) { return (uintptr_t)stream > 4096 && OF(stream)->capturing; }

/* Modules and launches of torch's own. */
char __cudaInitModule(void **module) { return 1; }
void **__cudaRegisterFatBinary(void *binary) { static void *module[4]; return module; }
void __cudaRegisterFatBinaryEnd(void **module) {}
void __cudaUnregisterFatBinary(void **module) {}
void __cudaRegisterFunction(void) {}
void __cudaRegisterVar(void) {}
static __thread struct { dim3 grid, block; size_t shared; void *stream; } given;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    given.grid = grid, given.block = block, given.shared = shared, given.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = given.grid, *block = given.block, *shared = given.shared, *(void **)stream = given.stream;
    return 0;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) { *kernel = (void *)function; return 0; }
static int noted(const char *what, cudaStream_t stream) {
    struct node node = {.count = 0};
    strncpy(node.name, what, NAME - 1);
    return stub_noted(OF(stream), &node);
}
static int launched(cudaStream_t stream) { int how = noted("a kernel of torch", stream); return how > 1 ? how : 0; }
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream) { ANSWER(launched(stream)); }
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) { ANSWER(launched(stream)); }
cudaError_t cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream) { ANSWER(launched(stream)); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
    ANSWER(launched(config->stream));
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024, found->numRegs = 32, found->ptxVersion = found->binaryVersion = 90;
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *found, const void *kernel, int threads,
                                                                   size_t shared, unsigned flags) { *found = 2; return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *found, const void *kernel, int threads, size_t shared) {
    *found = 2;
    return 0;
}

/* The device. */
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return 0; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return 0; }
cudaError_t cudaSetDevice(int device) { ANSWER(device ? 101 : 0); }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return 0; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "a stub of an H100");
    found->major = 9, found->multiProcessorCount = 132, found->warpSize = 32, found->l2CacheSize = 50 << 20;
    found->totalGlobalMem = 79ull << 30, found->regsPerBlock = found->regsPerMultiprocessor = 65536;
    found->sharedMemPerBlock = 49152, found->sharedMemPerBlockOptin = 232448, found->sharedMemPerMultiprocessor = 233472;
    found->maxThreadsPerBlock = 1024, found->maxThreadsPerMultiProcessor = 2048, found->maxBlocksPerMultiProcessor = 32;
    found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024, found->maxThreadsDim[2] = 64;
    found->maxGridSize[0] = INT32_MAX, found->maxGridSize[1] = found->maxGridSize[2] = 65535;
    found->unifiedAddressing = found->concurrentKernels = found->cooperativeLaunch = 1, found->textureAlignment = 512;
    return 0;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int device) {
    struct cudaDeviceProp found;
    cudaGetDeviceProperties(&found, device);
    switch (what) {
    case cudaDevAttrComputeCapabilityMajor: *value = found.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = found.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = found.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = found.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = found.sharedMemPerBlock; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = found.maxThreadsPerBlock; break;
    case cudaDevAttrWarpSize: *value = found.warpSize; break;
    default: *value = 1;
    }
    return 0;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most) { *least = 0, *most = -5; return 0; }
cudaError_t cudaDeviceGetPCIBusId(char *name, int length, int device) { snprintf(name, length, "0000:00:00.0"); return 0; }
cudaError_t cudaGetLastError(void) { int found = last; last = 0; return found; }
cudaError_t cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorName(cudaError_t error) { return "an error of the stub"; }
const char *cudaGetErrorString(cudaError_t error) {
    return error == NO_MEMORY ? "out of memory" : error == CAPTURED ? "operation not permitted when stream is capturing"
         : error == BROKEN ? "operation failed due to a previous error during capture" : "an error of the stub";
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *how) {
    *found = dlsym(RTLD_DEFAULT, name);
    if (!*found) *found = (void *)cudaPeekAtLastError; /* it answers 0 */
    if (how) *how = cudaDriverEntryPointSuccess;
    return 0;
}

/* Memory. */
cudaError_t cudaMalloc(void **found, size_t bytes) {
    int error = stub_unsafe("cudaMalloc");
    if (!error && !(*found = stub_alloc(bytes))) error = NO_MEMORY;
    ANSWER(error);
}
cudaError_t cudaFree(void *address) { int error = address ? stub_unsafe("cudaFree") : 0; ANSWER(error ? error : stub_free(address)); }
cudaError_t cudaHostAlloc(void **found, size_t bytes, unsigned flags) {
    int error = stub_unsafe("cudaHostAlloc");
    ANSWER(error ? error : posix_memalign(found, 4096, bytes) ? NO_MEMORY : 0);
}
cudaError_t cudaFreeHost(void *address) { free(address); return 0; }
cudaError_t cudaMemGetInfo(size_t *left, size_t *all) { *all = 79ull << 30, *left = *all - stub_used(); return 0; }
cudaError_t cudaGetSymbolAddress(void **found, const void *symbol) { static char room[1 << 20]; *found = room; return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    memset(found, 0, sizeof *found);
    if (stub_is_device((uint64_t)address)) found->type = cudaMemoryTypeDevice, found->devicePointer = (void *)address;
    return 0;
}
static int touched(const char *what, const void *address, size_t bytes) {
    if (!bytes || !stub_is_device((uint64_t)address) || stub_within((uint64_t)address, bytes)) return 0;
    stub_say("%s %p, %zu bytes, which are not in one allocation", what, address, bytes);
    return BAD_ADDRESS;
}
static int copied(void *to, const void *from, size_t bytes) {
    int error = touched("copied to", to, bytes) + touched("copied from", from, bytes);
    if (!error && bytes) memmove(to, from, bytes);
    return error ? BAD_ADDRESS : 0;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    int error = stub_unsafe("cudaMemcpy");
    ANSWER(error ? error : copied(to, from, bytes));
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    int how = noted("a copy", stream);
    ANSWER(how > 1 ? how : how ? touched("copied to", to, bytes) : copied(to, from, bytes));
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t step, const void *from, size_t own, size_t bytes, size_t rows,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
    int how = noted("a copy", stream), error = how > 1 ? how : 0;
    for (size_t n = 0; n < rows && !how && !error; n++) error = copied((char *)to + n * step, (char *)from + n * own, bytes);
    ANSWER(error);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    int how = noted("a memset", stream), error = how > 1 ? how : touched("set", to, bytes);
    if (!how && !error) memset(to, value, bytes);
    ANSWER(error);
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, 0); }

/* Streams, events and graphs. */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *made, unsigned flags, int priority) {
    struct stream *stream = calloc(1, sizeof *stream);
    *made = (void *)(stub_streams[stub_stream_count++] = stream);
    return 0;
}
cudaError_t cudaStreamCreate(cudaStream_t *made) { return cudaStreamCreateWithPriority(made, 0, 0); }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return 0; }
static int waited(const char *what, cudaStream_t stream) {
    if (!is_capturing(stream)) return 0;
    OF(stream)->is_broken = 1;
    stub_say("%s on a stream that is captured", what);
    return CAPTURED;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { ANSWER(waited("cudaStreamSynchronize", stream)); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { ANSWER(waited("cudaStreamQuery", stream)); }
cudaError_t cudaDeviceSynchronize(void) { ANSWER(stub_unsafe("cudaDeviceSynchronize")); }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    int before = stub_mode;
    stub_mode = *mode, *mode = before;
    return 0;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    if ((uintptr_t)stream < 4096) ANSWER(CAPTURED);
    struct graph *graph = calloc(1, sizeof *graph);
    graph->last = &graph->first;
    *OF(stream) = (struct stream){.capturing = 1, .is_origin = 1, .is_joined = 1, .mode = mode, .id = ++captures,
                                  .thread = syscall(SYS_gettid), .graph = graph};
    return 0;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = 0;
    if (!is_capturing(stream)) ANSWER(BROKEN);
    int error = OF(stream)->is_broken ? BROKEN : 0;
    for (int n = 0; n < stub_stream_count; n++) {
        struct stream *other = stub_streams[n];
        if (!other->capturing || other->id != OF(stream)->id) continue;
        if (!other->is_joined) error = UNJOINED, stub_say("a stream that joined a capture has not come back");
        if (other->is_broken && !error) error = BROKEN;
        other->capturing = 0;
    }
    if (!error) *graph = (void *)OF(stream)->graph;
    ANSWER(error);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *found) {
    *found = !is_capturing(stream) ? 0 : OF(stream)->is_broken ? 2 : 1;
    return 0;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *found, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
    cudaStreamIsCapturing(stream, found);
    if (*found && id) *id = OF(stream)->id;
    if (*found && graph) *graph = (void *)OF(stream)->graph;
    if (nodes) *nodes = 0;
    if (edges) *edges = 0;
    if (count) *count = 0;
    return 0;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    *count = ((struct graph *)graph)->count;
    return 0;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    *made = (void *)graph;
    return 0;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) { ANSWER(stub_replayed((void *)graph)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags) {
    *made = calloc(1, sizeof(struct event));
    return 0;
}
cudaError_t cudaEventCreate(cudaEvent_t *made) { return cudaEventCreateWithFlags(made, 0); }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t given, cudaStream_t stream, unsigned flags) {
    struct event *event = (void *)given;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *event = (struct event){now.tv_sec * 1e3 + now.tv_nsec / 1e6, 0, 0, 1};
    if (is_capturing(stream)) event->capture = OF(stream), event->id = OF(stream)->id;
    return 0;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaEventRecordWithFlags(event, stream, 0); }
static struct stream *capture_of(cudaEvent_t given) {
    struct event *event = (void *)given;
    return event->capture && event->capture->capturing && event->capture->id == event->id ? event->capture : 0;
}
static int event_waited(cudaEvent_t event) {
    struct stream *capture = capture_of(event);
    return capture ? waited("waiting for an event", (void *)capture) : 0;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { ANSWER(event_waited(event)); }
cudaError_t cudaEventQuery(cudaEvent_t event) { int error = event_waited(event); ANSWER(error ? error : stub_unsafe("cudaEventQuery")); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = ((struct event *)to)->at - ((struct event *)from)->at;
    if (*ms < 1e-3f) *ms = 1e-3f;
    return 0;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    struct stream *capture = capture_of(event), *own = OF(stream);
    if (capture && (uintptr_t)stream < 4096) ANSWER(LEGACY);
    if (capture && own != capture && !own->capturing) {
        *own = *capture;
        own->is_origin = own->is_joined = 0;
    } else if (capture && own != capture) {
        capture->is_joined = 1;
    } else if (!capture && is_capturing(stream) && ((struct event *)event)->is_recorded) {
        own->is_broken = 1, stub_say("a captured stream waits for an event from before");
        ANSWER(NOT_OURS);
    }
    return 0;
}
