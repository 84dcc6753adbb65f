#include "device.cuh"

// One layer's attention of decode rows, from the merged projections on: queries and keys are rotated
// (and RMS-normalised first, where there are norms), the new keys and values go to their places in the
// pool, and each query attends to the tokens of its row. A block takes one row, one key head with its
// GROUP query heads, and one part of the row's tokens; of the parts' blocks the one that is done last
// joins them by their maxima (flash decoding, Dao et al. 2023). There are as many parts as the row has
// tokens for, gridDim.y at most; blocks beyond them have nothing to do. LANES lanes share a token, 8
// dimensions each; keys and values of a turn are on their way while the turn before is computed.
//
// merged [rows][query heads, key heads, value heads][DIM]; cosines, sines [rows][DIM]; norms [DIM];
// keys, values [slots of the pool][key heads][DIM]; tables [..][table_stride] of block ids, one for each
// of table_rows; lengths [rows], the new token included; places [rows]: where its key and value go.
#define LANES (DIM / 8)
#define APART (32 / LANES)
#define WARPS 4
#define GROUPS (WARPS * APART)
#define AT_ONCE 4
#define TURN (GROUPS * AT_ONCE)  // tokens
#define LEAST_PART (2 * TURN)
#define TABLE 256  // block ids that are held at a time

__device__ __forceinline__ void widen8(float* to, const u16* from) {
  const uint4 v = *(const uint4*)from;
  const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) to[2 * i] = low_of(words[i]), to[2 * i + 1] = high_of(words[i]);
}

// Dimensions 8 l to 8 l + 7 of a head, rotated and rounded as they are stored.
__device__ __forceinline__ uint4 rotated(const u16* head, const u16* norm, float eps, const u16* cosines,
                                         const u16* sines, int l) {
  const int other = (l + LANES / 2) % LANES;
  float x[8], partner[8], cosine[8], sine[8];
  widen8(x, head + 8 * l);
  widen8(partner, head + 8 * other);
  if (norm) {
    float squares = 0.f, factor[8], factor_of_partner[8];
#pragma unroll
    for (int i = 0; i < 8; i++) squares += x[i] * x[i];
#pragma unroll
    for (int o = LANES / 2; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
    const float by = rsqrtf(squares / DIM + eps);
    widen8(factor, norm + 8 * l);
    widen8(factor_of_partner, norm + 8 * other);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] *= by * factor[i], partner[i] *= by * factor_of_partner[i];
  }
  widen8(cosine, cosines + 8 * l);
  widen8(sine, sines + 8 * l);
  u32 to[4];
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] = x[i] * cosine[i] + (l < LANES / 2 ? -partner[i] : partner[i]) * sine[i];
#pragma unroll
  for (int i = 0; i < 4; i++) to[i] = pack(x[2 * i], x[2 * i + 1]);
  return make_uint4(to[0], to[1], to[2], to[3]);
}

__device__ __forceinline__ float part_of_dot(const float* q, uint4 v) {
  const u32 words[4] = {v.x, v.y, v.z, v.w};
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) sum += q[2 * i] * low_of(words[i]) + q[2 * i + 1] * high_of(words[i]);
  return sum;
}

// One query's softmax so far: the largest score, the sum of the weights, the weighted values.
struct Sofar {
  float largest, total, values[8];

  __device__ __forceinline__ void shrink(float to) {
    const float by = __expf(largest - to);
    largest = to;
    total *= by;
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] *= by;
  }

  __device__ __forceinline__ void add(float score, uint4 v) {
    const float weight = __expf(score - largest);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    total += weight;
#pragma unroll
    for (int i = 0; i < 4; i++) values[2 * i] += weight * low_of(words[i]), values[2 * i + 1] += weight * high_of(words[i]);
  }
};

extern "C" __global__ void __launch_bounds__(WARPS * 32)
rotary_attention(const u16* merged, const u16* cosines, const u16* sines, const u16* __restrict__ query_norm,
                 const u16* __restrict__ key_norm, float eps, u16* keys, u16* values, const long long* tables,
                 const long long* table_rows, const long long* lengths, const long long* places,
                 const float* __restrict__ sinks, u16* y, float* sums, float2* marks, u32* counters,
                 int table_stride, int key_heads, float scale, float softcap, int window) {
  let_next_start();
  wait_for_input();
  const int row = blockIdx.x / key_heads, head = blockIdx.x % key_heads, part = blockIdx.y;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, l = lane % LANES, apart = lane / LANES;
  const int length = (int)lengths[row], oldest = window > 0 ? max(length - window, 0) : 0;
  const int parts = min((int)gridDim.y, (length - oldest + LEAST_PART - 1) / LEAST_PART);
  if (part >= parts) return;
  const int per = (length - oldest + parts - 1) / parts, start = oldest + part * per, end = min(start + per, length);
  const bool has_new = start < length && end == length;
  const int stored = has_new ? length - 1 : end;
  const long long* table = tables + table_rows[row] * table_stride;
  const u16* mine = merged + (size_t)row * (GROUP + 2) * key_heads * DIM;
  const u16 *cosine = cosines + (size_t)row * DIM, *sine = sines + (size_t)row * DIM;

  float q[GROUP][8];
  Sofar sofar[GROUP];
#pragma unroll
  for (int j = 0; j < GROUP; j++) {
    const uint4 v = rotated(mine + (head * GROUP + j) * DIM, query_norm, eps, cosine, sine, l);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) q[j][2 * i] = low_of(words[i]) * scale, q[j][2 * i + 1] = high_of(words[i]) * scale;
    sofar[j].largest = -1e30f;  // below every score, and no infinity, whose differences are no numbers
    sofar[j].total = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sofar[j].values[i] = 0.f;
  }
  auto whole = [&](float score) {
#pragma unroll
    for (int o = LANES / 2; o; o >>= 1) score += __shfl_xor_sync(~0u, score, o);
    return softcap > 0.f ? softcap * (1.f - 2.f / (__expf(2.f * score / softcap) + 1.f)) : score;
  };

  __shared__ int ids[TABLE];
  for (int chunk = start; chunk < stored; chunk = (chunk / BLOCK + TABLE) * BLOCK) {
    const int first_block = chunk / BLOCK, chunk_end = min(stored, (first_block + TABLE) * BLOCK);
    __syncthreads();
    for (int i = threadIdx.x; first_block + i <= (chunk_end - 1) / BLOCK; i += WARPS * 32)
      ids[i] = (int)table[first_block + i];
    __syncthreads();
    uint4 k[AT_ONCE], v[AT_ONCE], next_k[AT_ONCE], next_v[AT_ONCE];
    auto fetch = [&](int t0) {
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) {
        const int t = min(t0 + u * GROUPS, chunk_end - 1);
        const size_t place = (size_t)ids[t / BLOCK - first_block] * BLOCK + t % BLOCK;
        const size_t at = (place * key_heads + head) * DIM + l * 8;
        next_k[u] = *(const uint4*)(keys + at);
        next_v[u] = *(const uint4*)(values + at);
      }
    };
    const int mine_at = chunk + warp * APART + apart;
    fetch(mine_at);
    for (int turn = 0; turn < chunk_end - chunk; turn += TURN) {
      const int t0 = mine_at + turn;
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) k[u] = next_k[u], v[u] = next_v[u];
      if (turn + TURN < chunk_end - chunk) fetch(t0 + TURN);
#pragma unroll
      for (int j = 0; j < GROUP; j++) {
        float score[AT_ONCE], largest = sofar[j].largest;
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
          score[u] = whole(part_of_dot(q[j], k[u]));
          if (t0 + u * GROUPS >= chunk_end) score[u] = -2e30f;
          largest = fmaxf(largest, score[u]);
        }
        sofar[j].shrink(largest);
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) sofar[j].add(score[u], v[u]);
      }
    }
  }
  if (has_new && warp == 0) {
    const uint4 k = rotated(mine + (key_heads * GROUP + head) * DIM, key_norm, eps, cosine, sine, l);
    const uint4 v = *(const uint4*)(mine + (key_heads * (GROUP + 1) + head) * DIM + l * 8);
    if (apart == 0) {
      const size_t at = ((size_t)places[row] * key_heads + head) * DIM + l * 8;
      *(uint4*)(keys + at) = k;
      *(uint4*)(values + at) = v;
    }
#pragma unroll
    for (int j = 0; j < GROUP; j++) {
      const float score = whole(part_of_dot(q[j], k));
      if (apart == 0) {
        sofar[j].shrink(fmaxf(sofar[j].largest, score));
        sofar[j].add(score, v);
      }
    }
  }

  // the groups of lanes, then the parts
  __shared__ float found[GROUPS][GROUP][DIM];
  __shared__ float2 found_marks[GROUPS][GROUP];
#pragma unroll
  for (int j = 0; j < GROUP; j++) {
    float* to = found[warp * APART + apart][j] + l * 8;
#pragma unroll
    for (int i = 0; i < 8; i++) to[i] = sofar[j].values[i];
    if (l == 0) found_marks[warp * APART + apart][j] = make_float2(sofar[j].largest, sofar[j].total);
  }
  __syncthreads();
  const size_t first_head = (size_t)row * key_heads * GROUP + head * GROUP;
  auto write = [&](int j, int d, float value, float largest, float total) {
    if (sinks) {
      const float sink = sinks[head * GROUP + j], larger = fmaxf(largest, sink), by = __expf(largest - larger);
      value *= by;
      total = total * by + __expf(sink - larger);
    }
    y[(first_head + j) * DIM + d] = narrow(value / total);
  };
  for (int at = threadIdx.x; at < GROUP * DIM; at += WARPS * 32) {
    const int j = at / DIM, d = at % DIM;
    float largest = -1e30f, total = 0.f, value = 0.f;
#pragma unroll
    for (int i = 0; i < GROUPS; i++) largest = fmaxf(largest, found_marks[i][j].x);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
      const float2 mark = found_marks[i][j];
      const float by = __expf(mark.x - largest);
      total += mark.y * by;
      value += found[i][j][d] * by;
    }
    if (parts == 1)
      write(j, d, value, largest, total);
    else {
      __stcg(sums + ((first_head + j) * parts + part) * DIM + d, value);
      if (d == 0) __stcg(marks + (first_head + j) * parts + part, make_float2(largest, total));
    }
  }
  if (parts == 1 || !last_to_arrive(counters + blockIdx.x, parts)) return;
  for (int at = threadIdx.x; at < GROUP * DIM; at += WARPS * 32) {
    const int j = at / DIM, d = at % DIM;
    float largest = -1e30f, total = 0.f, value = 0.f;
    const size_t from = (first_head + j) * parts;
#pragma unroll 8
    for (int p = 0; p < parts; p++) largest = fmaxf(largest, __ldcg(marks + from + p).x);
#pragma unroll 8
    for (int p = 0; p < parts; p++) {
      const float2 mark = __ldcg(marks + from + p);
      const float by = __expf(mark.x - largest);
      total += mark.y * by;
      value += __ldcg(sums + (from + p) * DIM + d) * by;
    }
    write(j, d, value, largest, total);
  }
}
