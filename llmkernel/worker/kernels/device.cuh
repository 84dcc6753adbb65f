#include "ptx.cuh"

// What every kernel of this folder uses; put before its source when it is compiled (launch.py).

// A single block needs nothing of what clusters have.
#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

__device__ __forceinline__ u16 narrow(float value) { return (u16)(pack(value, 0.f) & 0xffffu); }

__device__ __forceinline__ float low_of(u32 pair) { return widen((u16)(pair & 0xffffu)); }

__device__ __forceinline__ float high_of(u32 pair) { return widen((u16)(pair >> 16)); }

__device__ __forceinline__ float silu(float x) { return x / (1.f + __expf(-x)); }

// True for the last block that comes here, whose reads then see what the others wrote before.
// The counter is zero again afterwards. All threads of the block call it.
__device__ __forceinline__ bool last_to_arrive(u32* counter, u32 many) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == many - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}
