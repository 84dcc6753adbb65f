// CUDA sources of llmkernel/worker/kernels on a processor: a stand-in for ptx.cuh and for what a CUDA
// compiler knows by itself. Each thread of a block is a fiber, each block a thread of the process, so
// what is `__shared__` is thread_local. Fibers are run in a random order, copies that nobody waits for
// arrive late, and a block that stands still ends with an error: races and missing waits show.

#include "threads.h"

#include <math.h>
#include <string.h>

#define __device__
#define __global__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static __thread

struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) uint2 { u32 x, y; };
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

using on_host::blockDim;
using on_host::blockIdx;
using on_host::gridDim;
using on_host::threadIdx;

template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }

inline void __syncthreads() { on_host::in_block(); }
inline void __syncwarp() { on_host::in_warp(nullptr, nullptr); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline u32 atomicAdd(u32* at, u32 value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
template <typename T> T __ldg(const T* at) { return *at; }
template <typename T> T __ldcg(const T* at) { return *at; }
template <typename T> void __stcg(T* at, T value) { *at = value; }

inline float __shfl_xor_sync(u32, float value, u32 by) {
  struct Given { float mine, other; u32 by; } given{value, 0.f, by};
  on_host::in_warp(&given, [](void** all) {
    for (u32 lane = 0; lane < 32; lane++) {
      Given& one = *(Given*)all[lane];
      one.other = ((Given*)all[lane ^ one.by])->mine;
    }
  });
  return given.other;
}

inline float __shfl_sync(u32, float value, u32 from) {
  struct Given { float mine, other; u32 from; } given{value, 0.f, from};
  on_host::in_warp(&given, [](void** all) {
    for (u32 lane = 0; lane < 32; lane++) {
      Given& one = *(Given*)all[lane];
      one.other = ((Given*)all[one.from])->mine;
    }
  });
  return given.other;
}

inline float __uint_as_float(u32 bits) { float f; memcpy(&f, &bits, 4); return f; }
inline u32 __float_as_uint(float f) { u32 bits; memcpy(&bits, &f, 4); return bits; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline u32 __byte_perm(u32 a, u32 b, u32 selector) {
  const unsigned long long bytes = (unsigned long long)b << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; i++) result |= (u32)(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
}

inline void wait_for_input() {}
inline void let_next_start() {}

inline u16 narrowed(float value) {
#ifdef BF16
  const u32 bits = __float_as_uint(value);
  if (isnan(value)) return (u16)(bits >> 16 | 64);
  return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
  _Float16 half = (_Float16)value;
  u16 bits;
  memcpy(&bits, &half, 2);
  return bits;
#endif
}

inline float2 both_halves(u32 pair) {
  _Float16 halves[2];
  memcpy(halves, &pair, 4);
  return {(float)halves[0], (float)halves[1]};
}

inline float widen(u16 value) {
#ifdef BF16
  return __uint_as_float((u32)value << 16);
#else
  _Float16 half;
  memcpy(&half, &value, 2);
  return (float)half;
#endif
}

inline u32 pack(float low, float high) { return (u32)narrowed(high) << 16 | narrowed(low); }

inline u32 pair_fma(u32 a, u32 b, u32 c) {
  auto half = [&](int shift) {
    return (float)((double)widen((u16)(a >> shift)) * widen((u16)(b >> shift)) + widen((u16)(c >> shift)));
  };
  return pack(half(0), half(16));
}

// The fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16").
inline void mma(float* d, const u32* a, u32 b0, u32 b1) {
  struct Given { float* d; u32 a[4], b[2]; } given{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  on_host::in_warp(&given, [](void** all) {
    float weights[16][16], inputs[8][16];
    for (int lane = 0; lane < 32; lane++) {
      const Given& one = *(const Given*)all[lane];
      const int g = lane >> 2, c = lane & 3;
      for (int i = 0; i < 8; i++)
        weights[g + 8 * (i >> 1 & 1)][2 * c + 8 * (i >> 2) + (i & 1)] = widen((u16)(one.a[i >> 1] >> 16 * (i & 1)));
      for (int i = 0; i < 4; i++) inputs[g][2 * c + 8 * (i >> 1) + (i & 1)] = widen((u16)(one.b[i >> 1] >> 16 * (i & 1)));
    }
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++) {
        const int row = (lane >> 2) + 8 * (i >> 1), column = (lane & 3) * 2 + (i & 1);
        float& sum = ((const Given*)all[lane])->d[i];
        for (int k = 0; k < 16; k++) sum += weights[row][k] * inputs[column][k];
      }
  });
}

inline u32 transposed(u32 pair) {
  struct Given { u32 mine, other; } given{pair, 0};
  on_host::in_warp(&given, [](void** all) {
    auto at = [&](int row, int column) { return ((Given*)all[row * 4 + column / 2])->mine >> 16 * (column & 1) & 0xffff; };
    for (int lane = 0; lane < 32; lane++)
      ((Given*)all[lane])->other = at((lane & 3) * 2, lane >> 2) | at((lane & 3) * 2 + 1, lane >> 2) << 16;
  });
  return given.other;
}

template <typename T> T stream_in(const T* at) { return *at; }
template <typename T> T stream_once(const T* at) { return *at; }
template <typename T> T read_early(const T* at) { return *at; }
inline void look_at(const uint4*) {}
inline void bring_near(const void* at) { *(const volatile char*)at; }

inline float* dynamic_shared() { return (float*)(on_host::memory + on_host::STATIC); }
inline u32 shared_address(const void* at) { return on_host::address(at); }
inline void store_shared(u32 at, uint4 v) { memcpy(on_host::shared(at), &v, 16); }
inline void store_shared(u32 at, const float* v) { memcpy(on_host::shared(at), v, 16); }
inline void load_shared(u32* to, u32 at) { memcpy(to, on_host::shared(at), 16); }
inline u32 load_shared_word(u32 at) { return *(u32*)on_host::shared(at); }
inline float load_shared_float(u32 at) { return *(float*)on_host::shared(at); }
template <u32 BASE> u32 look_up(u32 at) { return *(u32*)on_host::shared(at + BASE); }
inline u32 lane_address() { return (threadIdx.x & 31) * 4; }

inline float2 load_shared_pair(u32 at) { return *(float2*)on_host::shared(at); }
inline void begin_copy(u32 to, const void* from) { on_host::begin_copy(on_host::shared(to), from, 16); }
inline void begin_copy_once(u32 to, const void* from) { begin_copy(to, from); }
using on_host::end_group;
template <int MOST> void wait_for_groups() { on_host::wait_for_groups(MOST); }
using on_host::arrive;
using on_host::arrive_with_copies;
using on_host::make_barrier;
using on_host::wait_at;
using on_host::arrive_in_cluster;
using on_host::wait_in_cluster;
using on_host::expect_stores;
using on_host::wait_for_stores;
inline void store_in_cluster(u32 at, u32 barrier, u32 block, float2 v) {
  on_host::store_in_cluster(at, barrier, block, &v, 8);
}
inline void store_in_cluster(u32 at, u32 barrier, u32 block, const float* v) {
  on_host::store_in_cluster(at, barrier, block, v, 16);
}

// A kernel called with the addresses of its arguments.
template <int... AT> struct Places {};
template <typename... Types, int... AT>
void call(void (*kernel)(Types...), void** given, Places<AT...>) { kernel(*(Types*)given[AT]...); }
template <int LEFT, int... AT> struct UpTo : UpTo<LEFT - 1, LEFT - 1, AT...> {};
template <int... AT> struct UpTo<0, AT...> { typedef Places<AT...> All; };
template <typename... Types>
void call(void (*kernel)(Types...), void** given) { call(kernel, given, typename UpTo<sizeof...(Types)>::All()); }
