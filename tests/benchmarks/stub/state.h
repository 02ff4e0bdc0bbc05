/* What the stubs of the driver and of the runtime know together: memory, and what is captured. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { PARAMETERS = 128, NAME = 256 };
enum { BAD_VALUE = 1, NO_MEMORY = 2, BAD_ADDRESS = 700, TOO_MANY = 701, CAPTURED = 900, BROKEN = 901, UNJOINED = 904,
       NOT_OURS = 905, LEGACY = 906 };

struct node { char name[NAME]; uint64_t values[PARAMETERS]; int count; struct node *next; }; /* a launch */
struct graph { struct node *first, **last; int count; };
struct stream { int capturing, is_origin, is_broken, is_joined, mode; long id, thread; struct graph *graph; };

extern __thread int stub_mode;          /* of captures, as the thread has set it: 0 global, 1 of threads, 2 relaxed */
extern struct stream *stub_streams[];
extern int stub_stream_count;

void stub_say(const char *format, ...); /* to the file that STUB_COMPLAINTS names */
void *stub_alloc(size_t bytes);         /* addresses never come again */
int stub_free(void *address);
int stub_live(uint64_t address);        /* 1 live, -1 freed, 0 no memory of the device */
int stub_within(uint64_t address, uint64_t bytes); /* whole in one allocation */
int stub_is_device(uint64_t address);
uint64_t stub_used(void);
int stub_unsafe(const char *what);      /* an error where something is captured that forbids it */
int stub_noted(struct stream *stream, struct node *node); /* 0: it runs at once, 1: into a graph, else an error */
int stub_replayed(struct graph *graph);
