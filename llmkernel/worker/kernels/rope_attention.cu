#include "device.cuh"

// Attention of decode rows from merged projections [rows][query heads, key heads, value heads][DIM] to
// `output` [rows][query heads][DIM], with all that stands between: queries and keys are normalised where
// there are norms [DIM], rotated by cosines and sines [rows][DIM], and the row's key and value are put
// into their slot. A block takes a row, a key head with its GROUP query heads, and a part of the row's
// tokens: blockIdx.x is row * key heads + head, blockIdx.y the one of PARTS. Each row is of a sequence of its
// own, so nobody reads what another row writes, and keys and values of earlier steps may be fetched
// before the wait. The parts are joined by their log-sum-exp in the block that is done last (flash
// decoding, Dao et al. 2023): `sums` [rows * query heads][PARTS][DIM], `logs` [..][PARTS][largest, total].
//
// LANES lanes share a token, 8 dimensions each, so a warp reads TOGETHER tokens at once, and AT_ONCE
// times as many before it uses them. The partner of a dimension in rotation lies LANES / 2 lanes away.
#define LANES (DIM / 8)
#define TOGETHER (32 / LANES)
#define WARPS 4
#define STRIDE (WARPS * TOGETHER)
#define AT_ONCE (GROUP > 4 ? 1 : 2)
#define EACH (DIM / 32)
#define LEAST -1e30f

__device__ __forceinline__ void unpack(uint4 from, float* to) {
  const u32 words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; i++) to[2 * i] = low_of(words[i]), to[2 * i + 1] = high_of(words[i]);
}

__device__ __forceinline__ uint4 packed(const float* from) {
  return make_uint4(pack(from[0], from[1]), pack(from[2], from[3]), pack(from[4], from[5]), pack(from[6], from[7]));
}

__device__ __forceinline__ float over_token(float value) {
#pragma unroll
  for (int o = LANES / 2; o; o >>= 1) value += __shfl_xor_sync(~0u, value, o);
  return value;
}

// A head's 8 dimensions of this lane, normalised and rotated, rounded as they are kept.
__device__ __forceinline__ void turn(float* x, const u16* norm, float eps, const float* cosines, const float* sines, u32 part) {
  if (norm) {
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) squares += x[i] * x[i];
    const float by = rsqrtf(over_token(squares) / DIM + eps);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] *= by * widen(norm[part * 8 + i]);
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float partner = __shfl_xor_sync(~0u, x[i], LANES / 2);
    x[i] = x[i] * cosines[i] + (part < LANES / 2 ? -partner : partner) * sines[i];
    x[i] = widen(narrow(x[i]));
  }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, GROUP > 4 ? 3 : 4)
rope_attention(const u16* merged, const u16* cosines, const u16* sines, const u16* __restrict__ query_norm,
               const u16* __restrict__ key_norm, float eps, const long long* slots, const long long* tables,
               const long long* owners, const long long* lengths, int table_stride, u16* keys, u16* values,
               const u16* __restrict__ sinks, float scale, float softcap, int window, u16* output, float* sums,
               float* logs, u32* counters, int key_heads) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = lane % LANES, sub = lane / LANES;
  const int row = blockIdx.x / key_heads, head = blockIdx.x % key_heads;
  const int length = (int)lengths[row], oldest = window > 0 ? max(length - window, 0) : 0;
  const int per = ((length - oldest + PARTS - 1) / PARTS + STRIDE - 1) / STRIDE * STRIDE;
  const int begin = oldest + blockIdx.y * per, end = min(begin + per, length), newest = length - 1;
  const bool has_newest = begin <= newest && newest < end;
  const long long* table = tables + owners[row] * table_stride;
  uint4 key[AT_ONCE], value[AT_ONCE];
  auto fetch = [&](int first) {
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int at = first + u * STRIDE;
      key[u] = value[u] = make_uint4(0, 0, 0, 0);
      if (at >= end || at == newest) continue;
      const size_t from = (((size_t)table[at / BLOCK] * BLOCK + at % BLOCK) * key_heads + head) * DIM + part * 8;
      key[u] = *(const uint4*)(keys + from);
      value[u] = *(const uint4*)(values + from);
    }
  };
  int at = begin + warp * TOGETHER + sub;
  fetch(at);
  let_next_start();
  wait_for_input();

  float cosine[8], sine[8];
  unpack(*(const uint4*)(cosines + (size_t)row * DIM + part * 8), cosine);
  unpack(*(const uint4*)(sines + (size_t)row * DIM + part * 8), sine);
  const int query_heads = key_heads * GROUP;
  const u16* mine = merged + (size_t)row * (query_heads + 2 * key_heads) * DIM + part * 8;
  float query[GROUP][8];
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
    unpack(*(const uint4*)(mine + (head * GROUP + g) * DIM), query[g]);
    turn(query[g], query_norm, eps, cosine, sine, part);
#pragma unroll
    for (int i = 0; i < 8; i++) query[g][i] *= scale;
  }
  uint4 new_key = make_uint4(0, 0, 0, 0), new_value = new_key;
  if (has_newest) {
    float x[8];
    unpack(*(const uint4*)(mine + (query_heads + head) * DIM), x);
    turn(x, key_norm, eps, cosine, sine, part);
    new_key = packed(x);
    new_value = *(const uint4*)(mine + (query_heads + key_heads + head) * DIM);
    if (warp == 0 && sub == 0) {
      const size_t to = ((size_t)slots[row] * key_heads + head) * DIM + part * 8;
      *(uint4*)(keys + to) = new_key;
      *(uint4*)(values + to) = new_value;
    }
  }

  float largest[GROUP], total[GROUP], sum[GROUP][8];
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
    largest[g] = LEAST, total[g] = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum[g][i] = 0.f;
  }
  // all lanes take as many turns, for the shuffles' sake
  for (int first = begin; first < end; first += AT_ONCE * STRIDE) {
    const int now = at;
    uint4 held_key[AT_ONCE], held_value[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const bool is_new = now + u * STRIDE == newest;
      held_key[u] = is_new ? new_key : key[u];
      held_value[u] = is_new ? new_value : value[u];
    }
    at += AT_ONCE * STRIDE;
    fetch(at);
    float score[AT_ONCE][GROUP];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      float k[8];
      unpack(held_key[u], k);
#pragma unroll
      for (int g = 0; g < GROUP; g++) {
        float dot = 0.f;
#pragma unroll
        for (int i = 0; i < 8; i++) dot += query[g][i] * k[i];
        dot = over_token(dot);
        // tanh(x) = 1 - 2 / (exp(2 x) + 1), which no large x can overflow into NaN
        if (softcap > 0.f) dot = softcap * (1.f - 2.f / (__expf(2.f * dot / softcap) + 1.f));
        score[u][g] = now + u * STRIDE < end ? dot : -__int_as_float(0x7f800000);
      }
    }
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      float larger = largest[g];
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) larger = fmaxf(larger, score[u][g]);
      const float shrink = __expf(largest[g] - larger);
      largest[g] = larger;
      total[g] *= shrink;
#pragma unroll
      for (int i = 0; i < 8; i++) sum[g][i] *= shrink;
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) total[g] += score[u][g] = __expf(score[u][g] - larger);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      float v[8];
      unpack(held_value[u], v);
#pragma unroll
      for (int g = 0; g < GROUP; g++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum[g][i] += score[u][g] * v[i];
    }
  }

  // the tokens that a warp read at once, then the warps
  __shared__ float warp_sums[WARPS][GROUP][DIM], warp_logs[WARPS][GROUP][2];
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
#pragma unroll
    for (int o = LANES; o < 32; o <<= 1) {
      const float other = __shfl_xor_sync(~0u, largest[g], o), larger = fmaxf(largest[g], other);
      const float shrink = __expf(largest[g] - larger), shrink_other = __expf(other - larger);
      largest[g] = larger;
      total[g] = total[g] * shrink + __shfl_xor_sync(~0u, total[g], o) * shrink_other;
#pragma unroll
      for (int i = 0; i < 8; i++) sum[g][i] = sum[g][i] * shrink + __shfl_xor_sync(~0u, sum[g][i], o) * shrink_other;
    }
    if (sub == 0) {
#pragma unroll
      for (int i = 0; i < 8; i++) warp_sums[warp][g][part * 8 + i] = sum[g][i];
      if (part == 0) warp_logs[warp][g][0] = largest[g], warp_logs[warp][g][1] = total[g];
    }
  }
  __syncthreads();
  const size_t first_head = (size_t)row * query_heads + head * GROUP;
  // `value` is a warp's: EACH dimensions a lane of head g
  auto finish = [&](int g, const float* value, float larger, float all) {
    float by = 1.f;
    if (sinks) {
      const float sink = widen(sinks[head * GROUP + g]), top = fmaxf(larger, sink);
      by = __expf(larger - top);
      all = all * by + __expf(sink - top);
    }
    by /= all;
#pragma unroll
    for (int i = 0; i < EACH; i++) output[(first_head + g) * DIM + lane * EACH + i] = narrow(value[i] * by);
  };
  for (int g = warp; g < GROUP; g += WARPS) {
    float larger = LEAST, all = 0.f, joined[EACH] = {};
#pragma unroll
    for (int w = 0; w < WARPS; w++) larger = fmaxf(larger, warp_logs[w][g][0]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float by = __expf(warp_logs[w][g][0] - larger);
      all += warp_logs[w][g][1] * by;
#pragma unroll
      for (int i = 0; i < EACH; i++) joined[i] += warp_sums[w][g][lane * EACH + i] * by;
    }
#if PARTS == 1
    finish(g, joined, larger, all);
#else
    const size_t to = (first_head + g) * PARTS + blockIdx.y;
#pragma unroll
    for (int i = 0; i < EACH; i++) __stcg(sums + to * DIM + lane * EACH + i, joined[i]);
    if (lane == 0) __stcg(logs + 2 * to, larger), __stcg(logs + 2 * to + 1, all);
#endif
  }
#if PARTS > 1
  if (!last_to_arrive(counters + blockIdx.x, PARTS)) return;
  for (int g = warp; g < GROUP; g += WARPS) {
    const size_t from = (first_head + g) * PARTS;
    // a lane to a part
    float larger = LEAST, all = 0.f, joined[EACH] = {};
    if (lane < PARTS) larger = __ldcg(logs + 2 * (from + lane)), all = __ldcg(logs + 2 * (from + lane) + 1);
    float top = larger;
#pragma unroll
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    const float by = __expf(larger - top);
    all *= by;
#pragma unroll
    for (int o = 16; o; o >>= 1) all += __shfl_xor_sync(~0u, all, o);
#pragma unroll 8
    for (int p = 0; p < PARTS; p++) {
      const float part_by = __shfl_sync(~0u, by, p);
#pragma unroll
      for (int i = 0; i < EACH; i++) joined[i] += __ldcg(sums + (from + p) * DIM + lane * EACH + i) * part_by;
    }
    finish(g, joined, top, all);
  }
#endif
}
