#include "device.cuh"

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
