#include "device.cuh"

// Products of activations with 4-bit weights:
// y[m, n] = sum_k x[m, k] * (code[w[n, k]] * scale[n, k / group] - offset[n, k / group]).
//
// Layout. Weights lie in tiles of 16 rows by 64 columns, a tile's 512 bytes one after the other,
// the tiles of 16 rows along k: [rows / 16][k / 64][lane][16 bytes]. Lane 4 g + c of a warp holds
// rows g and g + 8, columns 8 c to 8 c + 7 of both halves of the tile: byte 4 s + j is row
// g + 8 (j & 1), columns 32 (s >> 1) + 8 c + 4 (s & 1) + 2 (j >> 1) and the next, the first one in
// the high nibble. So a warp reads a tile with one 16-byte load a lane, and the bytes of step s are
// the fragment that mma.m16n8k16 takes from this lane, for columns in an order that the activations
// follow. Scales and offsets: [rows / 16][k / group][g][rows g and g + 8], GROUPS of them in a tile.
//
// A byte is two weights, so a table of 256 pairs makes both with one look-up; each bank of shared
// memory has a copy of its own, and no two lanes ever wait for each other. An entry's copies take the
// first half of 256 bytes, so that an address is made by one byte permutation: 4 * lane, then the byte.
//
// GATED: row tiles come in pairs, gate and up, and y is silu(gate) * up, half as wide.

#define WARP 32u
// Where the table begins in shared memory; what the compiler places lies before it.
#define TABLE_AT 4096
#ifdef GATED
#define PAIRED 2
#else
#define PAIRED 1
#endif

#ifdef BF16
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#endif

// d += a * b
__device__ __forceinline__ void mma(float* d, const u32* a, u32 b0, u32 b1) {
  asm(MMA "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = a * b
__device__ __forceinline__ void first_mma(float* d, const u32* a, u32 b0, u32 b1) {
  asm(MMA "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%10,%10,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.f));
}

// Both halves of a pair times those of another, plus those of a third.
__device__ __forceinline__ u32 pair_fma(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn." PAIR_TYPE " %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

__device__ __forceinline__ u32 pair_times(u32 a, u32 b) {
  return pair_fma(a, b, 0x80008000u);  // plus zeros of the sign that changes none; 8.0 has no other way
}

// Activations and residuals are not marked as read-only, or their loads might be moved to before the
// wait for the kernel that writes them. Volatile keeps loads of weights ahead of what uses them.
__device__ __forceinline__ uint4 stream_in(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}

__device__ __forceinline__ float2 stream_in(const float2* at) {
  float2 v;
  asm volatile("ld.global.nc.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at));
  return v;
}

// Byte b -> (code[b >> 4], code[b & 15]), one copy for each bank.
__device__ __forceinline__ void fill_table(const float* code) {
  for (u32 word = threadIdx.x; word < 256 * 8; word += blockDim.x) {
    u32 byte = word >> 3;
    u32 pair = pack(__ldg(code + (byte >> 4)), __ldg(code + (byte & 15)));
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};"
        :: "r"(TABLE_AT + byte * 256 + (word & 7) * 16), "r"(pair) : "memory");
  }
}

// What `pair_of` needs of a lane; only after the barrier that follows `fill_table`.
__device__ __forceinline__ u32 lane_address() {
  u32 address;
  asm volatile("mov.u32 %0, %1;" : "=r"(address) : "r"((threadIdx.x & 31) * 4) : "memory");
  return address;
}

// The two weights of byte BYTE of `word`.
template <int BYTE>
__device__ __forceinline__ u32 pair_of(u32 word, u32 lane_at) {
  u32 pair, address = __byte_perm(word, lane_at, 0x7704 | (BYTE << 4));
  asm("ld.shared.u32 %0, [%1 + %2];" : "=r"(pair) : "r"(address), "n"(TABLE_AT));
  return pair;
}

// Adds up 16 activations of each token: a product with rows of ones, in the layout of the sums.
__device__ __forceinline__ void add_up(float* d, u32 b0, u32 b1) {
#ifdef BF16
  const u32 one = 0x3f803f80u;
#else
  const u32 one = 0x3c003c00u;
#endif
  const u32 ones[4] = {one, one, one, one};
  mma(d, ones, b0, b1);
}
