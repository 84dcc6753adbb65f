// The small kernels of a decoder layer, each one pass over few numbers.

#ifdef ONLY_rms_norm
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
#endif

#ifdef ONLY_rope_write
// From merged projections [tokens][query heads, key heads, value heads][DIM]: rotated queries to
// `query` [tokens][query heads][DIM], rotated keys and values to their slots [slots][key heads][DIM].
// A warp to a head; a lane has dimensions lane, lane + 32, ... of the first half and their partners
// of the second. cosines and sines [tokens][DIM]. With norms [DIM], heads are RMS-normalised first.
#define PAIRS ((DIM / 2 + 31) / 32)
extern "C" __global__ void __launch_bounds__(256)
rope_write(const u16* merged, const u16* cosines, const u16* sines, const u16* __restrict__ query_norm,
           const u16* __restrict__ key_norm, float eps, const long long* slots, u16* query, u16* keys, u16* values,
           int tokens, int query_heads, int key_heads) {
  let_next_start();
  wait_for_input();
  const int heads = query_heads + 2 * key_heads, lane = threadIdx.x & 31;
  const int at = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (at >= tokens * heads) return;
  const int token = at / heads, head = at % heads;
  const u16* from = merged + (size_t)at * DIM;
  float first[PAIRS], second[PAIRS];
#pragma unroll
  for (int p = 0; p < PAIRS; p++) {
    int i = lane + 32 * p;
    first[p] = i < DIM / 2 ? widen(from[i]) : 0.f;
    second[p] = i < DIM / 2 ? widen(from[i + DIM / 2]) : 0.f;
  }
  u16* to;
  if (head < query_heads)
    to = query + ((size_t)token * query_heads + head) * DIM;
  else {
    int key = (head - query_heads) % key_heads;
    to = (head < query_heads + key_heads ? keys : values) + ((size_t)slots[token] * key_heads + key) * DIM;
  }
  if (head < query_heads + key_heads) {
    const u16* norm = head < query_heads ? query_norm : key_norm;
    if (norm) {
      float squares = 0.f;
#pragma unroll
      for (int p = 0; p < PAIRS; p++) squares += first[p] * first[p] + second[p] * second[p];
#pragma unroll
      for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
      const float by = rsqrtf(squares / DIM + eps);
#pragma unroll
      for (int p = 0; p < PAIRS; p++) {
        int i = lane + 32 * p;
        if (i < DIM / 2) first[p] *= by * widen(norm[i]), second[p] *= by * widen(norm[i + DIM / 2]);
      }
    }
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
      int i = lane + 32 * p;
      if (i >= DIM / 2) continue;
      const u16 *cosine = cosines + (size_t)token * DIM + i, *sine = sines + (size_t)token * DIM + i;
      float a = first[p], b = second[p];
      first[p] = a * widen(cosine[0]) - b * widen(sine[0]);
      second[p] = b * widen(cosine[DIM / 2]) + a * widen(sine[DIM / 2]);
    }
  }
#pragma unroll
  for (int p = 0; p < PAIRS; p++) {
    int i = lane + 32 * p;
    if (i < DIM / 2) to[i] = narrow(first[p]), to[i + DIM / 2] = narrow(second[p]);
  }
}
#endif
