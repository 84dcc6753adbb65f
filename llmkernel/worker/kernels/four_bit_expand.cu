#include "four_bit.cuh"

// The weights themselves, [rows, columns]: a warp writes one tile.
extern "C" __global__ void four_bit_expand(const uint4* __restrict__ weights, const u32* __restrict__ scales,
                                           const float2* __restrict__ offsets, const __grid_constant__ Code code,
                                           u16* __restrict__ y, int rows, int columns) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = code.of[threadIdx.x];
  __syncthreads();
  wait_for_input();
  const u32 lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int k_tiles = columns >> 6;
  size_t tile = (size_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (tile >= (size_t)(rows >> 4) * k_tiles) return;
  int row = (int)(tile / k_tiles) * 16 + g, column = (int)(tile % k_tiles) * 64 + c * 8;
  uint4 held = weights[tile * WARP + lane];
  const u32 bytes[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
  for (int half = 0; half < 2; half++) {
    size_t group = (tile * GROUPS + (GROUPS == 2 ? half : 0)) * 8 + g;
    float2 scale = both_halves(scales[group]), offset = offsets ? offsets[group] : make_float2(0.f, 0.f);
#pragma unroll
    for (int high = 0; high < 2; high++) {
      float s = high ? scale.y : scale.x, o = high ? offset.y : offset.x;
      u32 to[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        u32 byte = (bytes[half * 2 + (i >> 1)] >> (8 * (2 * (i & 1) + high))) & 255;
        to[i] = pack(values[byte >> 4] * s - o, values[byte & 15] * s - o);
      }
      *(uint4*)(y + (size_t)(row + 8 * high) * columns + column + half * 32) = make_uint4(to[0], to[1], to[2], to[3]);
    }
  }
}
