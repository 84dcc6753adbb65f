// What a kernel on a processor needs of threads.cpp.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;

namespace on_host {

constexpr u32 SHARED = 256 * 1024, STATIC = 2048;

struct Index { u32 x, y; };
typedef void (*Body)(void** given);
typedef void (*Once)(void** all);

constexpr u32 WINDOW = 24;  // bits of an address, beyond which lies the number of a block in its cluster

extern __thread char memory[SHARED];  // where shared memory begins
extern __thread Index threadIdx, blockIdx, gridDim, blockDim;

// A block of a cluster has the addresses of its own memory only in its own window.
u32 window();
u32 address(const void* at);
char* shared(u32 at);

// `once` is called by the last thread of a warp that comes, with what each lane has given.
void in_warp(void* mine, Once once);
void in_block();

void begin_copy(void* to, const void* from, u32 bytes);
void end_group();
void wait_for_groups(u32 most);
void make_barrier(u32 at, u32 arrivals);
void arrive(u32 at);
void expect_bytes(u32 at, u32 bytes);
void begin_bulk(void* to, const void* from, u32 bytes, u32 barrier);
void arrive_with_copies(u32 at);
void wait_at(u32 at, u32 parity);

// All threads of a cluster's blocks.
void arrive_in_cluster();
void wait_in_cluster();

// Into the memory of another block, where a barrier counts down the bytes that are to come.
void expect_stores(u32 barrier, u32 bytes);
void store_in_cluster(u32 at, u32 barrier, u32 block, const void* from, u32 bytes);
void wait_for_stores(u32 barrier);

// A grid, `at_once` clusters of `cluster` blocks at the same time. Writes the first error, if there is one.
void launch(Body body, Index grid, u32 threads, u32 cluster, u32 at_once, u32 seed, void** given,
            char* error);

}  // namespace on_host
