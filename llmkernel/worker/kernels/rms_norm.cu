#include "device.cuh"

// y = x * rsqrt(mean(x^2) + eps) * weight for each row [width] of x; a block to a row. width is a
// multiple of 8.
extern "C" __global__ void __launch_bounds__(512)
rms_norm(const u16* x, const u16* __restrict__ weight, u16* y, int width, float eps) {
  __shared__ float warp_squares[16];
  const u16* row = x + (size_t)blockIdx.x * width;
  let_next_start();
  wait_for_input();
  float squares = 0.f;
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    uint4 v = *(const uint4*)(row + i);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float low = low_of(words[j]), high = high_of(words[j]);
      squares += low * low + high * high;
    }
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
  if ((threadIdx.x & 31) == 0) warp_squares[threadIdx.x >> 5] = squares;
  __syncthreads();
  squares = 0.f;
  for (int w = 0; w < (int)blockDim.x >> 5; w++) squares += warp_squares[w];
  const float by = rsqrtf(squares / width + eps);
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    uint4 v = *(const uint4*)(row + i), w = __ldg((const uint4*)(weight + i));
    const u32 words[4] = {v.x, v.y, v.z, v.w}, factors[4] = {w.x, w.y, w.z, w.w};
    u32 to[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
      to[j] = pack(low_of(words[j]) * by * low_of(factors[j]), high_of(words[j]) * by * high_of(factors[j]));
    *(uint4*)(y + (size_t)blockIdx.x * width + i) = make_uint4(to[0], to[1], to[2], to[3]);
  }
}
