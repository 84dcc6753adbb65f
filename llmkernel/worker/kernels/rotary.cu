#include "device.cuh"

// Cosines and sines [tokens][2 * half] of positions times frequencies [half], times `scaling`; both halves of
// the dimensions have the same.
extern "C" __global__ void __launch_bounds__(256)
rotary(const long long* positions, const float* __restrict__ frequencies, float scaling, u16* cosines, u16* sines,
       int tokens, int half) {
  let_next_start();
  wait_for_input();
  const int i = blockIdx.x * blockDim.x + threadIdx.x, token = i / half, pair = i % half;
  if (token >= tokens) return;
  const float angle = frequencies[pair] * (float)positions[token];
  const u16 cosine = narrow(cosf(angle) * scaling), sine = narrow(sinf(angle) * scaling);
  const size_t at = (size_t)token * 2 * half + pair;
  cosines[at] = cosines[at + half] = cosine;
  sines[at] = sines[at + half] = sine;
}
