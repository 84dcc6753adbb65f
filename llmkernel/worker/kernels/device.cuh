// What every kernel of this folder uses; put before its source when it is compiled (launch.py).
// No header is included: numbers of 16 bits are handled as such, BF16 says of which kind.

typedef unsigned int u32;
typedef unsigned short u16;

#ifdef BF16
#define PAIR_TYPE "bf16x2"
#else
#define PAIR_TYPE "f16x2"
#endif

// Before this a kernel may read only what no kernel writes: weights. After it, all that came before
// in the stream is done.
__device__ __forceinline__ void wait_for_input() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel may start, where there is room for it.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ u32 pack(float low, float high) {
  u32 pair;
#ifdef BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
  return pair;
}

__device__ __forceinline__ u16 narrow(float value) { return (u16)(pack(value, 0.f) & 0xffffu); }

__device__ __forceinline__ float widen(u16 value) {
#ifdef BF16
  return __uint_as_float((u32)value << 16);
#else
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
  return wide;
#endif
}

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
