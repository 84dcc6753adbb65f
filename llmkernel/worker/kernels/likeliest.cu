#include "device.cuh"

// The first place of the largest of each row of logits [rows][width], -1 where that is no finite number, and into
// newest[slots[row]], where there are any, the same or 0. gridDim.x blocks share a row, whose width is a multiple
// of 8: each leaves its largest in `found` [rows][gridDim.x], and the last one of a row reads them.

// Largest first: a number as bits that sort as numbers do, NaN above all; and where it is.
struct Largest {
  u32 key, place;

  __device__ __forceinline__ void take(u32 other, u32 where) {
    if (other > key || (other == key && where < place)) key = other, place = where;
  }

  __device__ __forceinline__ void take_all_of_warp() {
#pragma unroll
    for (int o = 16; o; o >>= 1) {
      const u32 other = __float_as_uint(__shfl_xor_sync(~0u, __uint_as_float(key), o));
      const u32 where = __float_as_uint(__shfl_xor_sync(~0u, __uint_as_float(place), o));
      take(other, where);
    }
  }
};

#define INFINITE 0xff800000u

__device__ __forceinline__ u32 key_of(float value) {
  if (!(value == value)) return ~0u;
  const u32 bits = __float_as_uint(value == 0.f ? 0.f : value);  // zeros are equal
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

extern "C" __global__ void __launch_bounds__(256)
likeliest(const u16* logits, long long* tokens, const long long* slots, long long* newest, uint2* found, u32* arrived,
          int width) {
  __shared__ Largest of_warp[8];
  const int row = blockIdx.y, parts = gridDim.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  let_next_start();
  wait_for_input();
  const uint4* const from = (const uint4*)(logits + (size_t)row * width);
  Largest largest = {0u, ~0u};
  for (int i = blockIdx.x * 256 + threadIdx.x; i < width / 8; i += parts * 256) {
    const uint4 v = from[i];
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      largest.take(key_of(low_of(words[j])), 8 * i + 2 * j);
      largest.take(key_of(high_of(words[j])), 8 * i + 2 * j + 1);
    }
  }
  largest.take_all_of_warp();
  if (lane == 0) of_warp[warp] = largest;
  __syncthreads();
  uint2* const mine = found + row * parts;
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; i++) largest.take(of_warp[i].key, of_warp[i].place);
    mine[blockIdx.x] = make_uint2(largest.key, largest.place);
  }
  if (!last_to_arrive(arrived + row, parts) || warp) return;
  largest = {0u, ~0u};
  for (int i = lane; i < parts; i += 32) {
    const uint2 theirs = __ldcg(mine + i);
    largest.take(theirs.x, theirs.y);
  }
  largest.take_all_of_warp();
  if (lane) return;
  // the keys of the infinities, and NaN
  const bool sound = largest.key > ~INFINITE && largest.key < (0x7f800000u | 0x80000000u);
  tokens[row] = sound ? (long long)largest.place : -1;
  if (newest) newest[slots[row]] = sound ? (long long)largest.place : 0;
}
