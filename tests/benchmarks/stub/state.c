/* Memory of the device, of which no address comes twice, so that one of freed memory is known; and captured streams. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "state.h"

static const uint64_t ROOM = 4ull << 40, APART = 2 << 20, MEMORY = 79ull << 30;
static const size_t MOST = 8 << 20; /* allocations of a process */

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static uint64_t begin, next, used;
static struct range { uint64_t at, bytes; int is_live; } *ranges;
static int count;
__thread int stub_mode;
struct stream *stub_streams[4096];
int stub_stream_count;

void stub_say(const char *format, ...) {
    char text[1024];
    va_list more;
    va_start(more, format);
    vsnprintf(text, sizeof text, format, more);
    va_end(more);
    const char *name = getenv("STUB_COMPLAINTS");
    FILE *file = name ? fopen(name, "a") : 0;
    fprintf(file ? file : stderr, "stub: %s\n", text);
    if (file) fclose(file);
}

static void *reserved(uint64_t bytes, int access) {
    return mmap(0, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void *stub_alloc(size_t bytes) {
    uint64_t whole = (bytes + 4095) / 4096 * 4096;
    pthread_mutex_lock(&lock);
    if (!begin) {
        begin = next = (uint64_t)reserved(ROOM, PROT_NONE);
        ranges = reserved(MOST * sizeof *ranges, PROT_READ | PROT_WRITE);
    }
    void *found = used + bytes > MEMORY ? 0 : (void *)next;
    if (found) {
        mprotect(found, whole, PROT_READ | PROT_WRITE);
        ranges[count++] = (struct range){next, bytes, 1};
        next += whole + APART;
        used += bytes;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static struct range *range_of(uint64_t address) {
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (ranges[middle].at <= address) low = middle + 1; else high = middle;
    }
    return low && address < ranges[low - 1].at + (ranges[low - 1].bytes ? ranges[low - 1].bytes : 1) ? ranges + low - 1 : 0;
}

int stub_free(void *address) {
    pthread_mutex_lock(&lock);
    struct range *range = range_of((uint64_t)address);
    int is_bad = address && (!range || range->at != (uint64_t)address || !range->is_live);
    if (address && !is_bad) {
        uint64_t whole = (range->bytes + 4095) / 4096 * 4096;
        madvise(address, whole, MADV_DONTNEED);
        mprotect(address, whole, PROT_NONE);
        range->is_live = 0;
        used -= range->bytes;
    }
    pthread_mutex_unlock(&lock);
    if (is_bad) stub_say("%p is freed, and is no allocation", address);
    return is_bad ? BAD_VALUE : 0;
}

int stub_is_device(uint64_t address) { return begin && address >= begin && address < begin + ROOM; }
uint64_t stub_used(void) { return used; }

int stub_live(uint64_t address) {
    pthread_mutex_lock(&lock);
    struct range *range = begin ? range_of(address) : 0;
    int found = !begin ? 1 : !range ? 0 : range->is_live ? 1 : -1; /* without a runtime: whatever is given */
    pthread_mutex_unlock(&lock);
    return found;
}

int stub_within(uint64_t address, uint64_t bytes) {
    pthread_mutex_lock(&lock);
    struct range *range = begin ? range_of(address) : 0;
    int found = !begin || (range && range->is_live && address + bytes <= range->at + range->bytes);
    pthread_mutex_unlock(&lock);
    return found;
}

int stub_unsafe(const char *what) {
    int error = 0;
    long own = syscall(SYS_gettid);
    pthread_mutex_lock(&lock);
    for (int n = 0; n < stub_stream_count && stub_mode != 2; n++) {
        struct stream *stream = stub_streams[n];
        if (stream->capturing && (stream->mode == 0 || (stream->mode == 1 && stream->thread == own)))
            stream->is_broken = 1, error = CAPTURED;
    }
    pthread_mutex_unlock(&lock);
    if (error) stub_say("%s while a stream is captured", what);
    return error;
}

int stub_noted(struct stream *stream, struct node *node) {
    int is_capturing = 0, result = 0;
    pthread_mutex_lock(&lock);
    for (int n = 0; n < stub_stream_count; n++) is_capturing |= stub_streams[n]->capturing;
    if (is_capturing && (uintptr_t)stream < 4096) {
        result = LEGACY;
    } else if (is_capturing && stream->capturing) {
        struct node *kept = memcpy(malloc(sizeof *kept), node, sizeof *kept);
        *stream->graph->last = kept;
        stream->graph->last = &kept->next;
        stream->graph->count++;
        result = 1;
    }
    pthread_mutex_unlock(&lock);
    if (is_capturing && result != 1) stub_say("%s goes into no graph, while another stream is captured", node->name);
    return result;
}
