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
// follow. Scales and offsets: [rows / 16][k / group][g][rows g and g + 8], GROUPS of them in a tile; scales are
// float16, so that the two are a word.
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

__device__ __forceinline__ u32 pair_times(u32 a, u32 b) {
  return pair_fma(a, b, 0x80008000u);  // plus zeros of the sign that changes none; 8.0 has no other way
}

// Activations and residuals are not marked as read-only, or their loads might be moved to before the
// wait for the kernel that writes them.

// The value of each nibble. It comes with the launch: in memory it would lie behind the first weights, which are
// on their way when the table is filled.
struct Code {
  float of[16];
};

// Byte b -> (code of b >> 4, code of b & 15), one copy for each bank.
__device__ __forceinline__ void fill_table(const Code& code) {
  for (u32 first = threadIdx.x & ~31u; first < 256 * 8; first += blockDim.x) {
    const u32 word = first + (threadIdx.x & 31), byte = word >> 3;
    const u32 pair = pack(code.of[byte >> 4], code.of[byte & 15]);
    store_shared(TABLE_AT + byte * 256 + (word & 7) * 16, make_uint4(pair, pair, pair, pair));
  }
}

// The two weights of byte BYTE of `word`. `lane_at` is the lane's `lane_address`, taken after the barrier
// that follows `fill_table`.
template <int BYTE>
__device__ __forceinline__ u32 pair_of(u32 word, u32 lane_at) {
  return look_up<TABLE_AT>(__byte_perm(word, lane_at, 0x7704 | (BYTE << 4)));
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
