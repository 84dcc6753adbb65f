#include "device.cuh"

// ids [tokens], but the newest token of slot sources[i] where that is not negative.
extern "C" __global__ void __launch_bounds__(256)
input_ids(const long long* ids, const long long* sources, const long long* newest, long long* result, int tokens) {
  let_next_start();
  wait_for_input();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < tokens) result[i] = sources[i] < 0 ? ids[i] : newest[sources[i]];
}
