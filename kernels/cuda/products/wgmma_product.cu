// Products of groups on Hopper's matrix units.
//
// As many blocks as multiprocessors, each of which takes tiles of 128 x 256 of a result one after
// another. One warp of a block lets the copy engine bring 64 of k at a time of both operands into
// four places in shared memory; two groups of four warps multiply what has come, each the half of
// the tile's rows, and write the sums. Copies of the next tile run while the last one is written.
//
// A tile may reach over the end of its group into rows of the next one or beyond all rows. In the
// forward product and backward_input such rows give rows of the result that nobody stores. In a
// weight gradient they would come into the sum, so the last 64 of k are cleared from there on
// first.
//
// Every sum runs over k in order in one accumulator in fp32, however many rows there are.
#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/products/group_product.hpp"
#include "kernels/cuda/products/wgmma_tile.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

#ifdef SWITCHYARD_HAS_SM90A  // the build is, among others, for Hopper with its own instructions

namespace {

using namespace wgmma;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // and this is the pass of the compiler for it

// The warp that lets operands come.
template <ProductKind kind, class Result>
__device__ void bring_operands(const Operands& p, const GroupTiles& tiles, std::byte* places,
                               std::uint64_t* full, std::uint64_t* free) {
  constexpr bool is_gradient = kind == ProductKind::backward_weight;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Turn turn;
  for (int number = static_cast<int>(blockIdx.x); number < tiles.num_tiles();
       number += static_cast<int>(gridDim.x)) {
    const GroupTile at = tiles.tile<kind, tile_m, tile_n>(number, p.extent_m, p.extent_n);
    const int extent_k = is_gradient ? at.rows : p.extent_k;
    const int next = number + static_cast<int>(gridDim.x);
    if (!is_gradient && lane == 0 && next < tiles.num_tiles())
      prefetch_map(
          &p.weights[tiles.tile<kind, tile_m, tile_n>(next, p.extent_m, p.extent_n).group]);
    for (int k = 0; k < extent_k; k += tile_k, turn.advance()) {
      if (lane == 0) {
        wait(&free[turn.place], turn.parity ^ 1);
        arrive_and_expect(&full[turn.place], place_bytes);
        load_place<kind>(p, at, k, places + turn.place * place_bytes, &full[turn.place]);
      }
      __syncwarp();
      if (is_gradient && k == 0) {  // the sums are added to these at the tile's end
        const auto* result = static_cast<const Result*>(p.result) +
                             (std::int64_t{at.group} * p.extent_m + at.m) * p.result_stride + at.n;
        const int bytes = min(tile_n, p.extent_n - at.n) * static_cast<int>(sizeof(Result));
        for (int row = lane; row < min(tile_m, p.extent_m - at.m); row += 32)
          prefetch_to_l2(result + row * p.result_stride, bytes);
      }
    }
  }
}

// A group of four warps: half 0 or 1 of every tile's rows.
template <ProductKind kind, class Result, bool accumulates>
__device__ void multiply_operands(const Operands& p, const GroupTiles& tiles, std::byte* places,
                                  std::uint64_t* full, std::uint64_t* free, std::byte* staging) {
  constexpr bool is_gradient = kind == ProductKind::backward_weight;
  const int thread = static_cast<int>(threadIdx.x) - 128;
  const int half = thread / 128;
  const int warp = thread / 32;  // of 8
  const int lane = thread % 32;
  float sums[128] = {};
  Turn turn;
  for (int number = static_cast<int>(blockIdx.x); number < tiles.num_tiles();
       number += static_cast<int>(gridDim.x)) {
    const GroupTile at = tiles.tile<kind, tile_m, tile_n>(number, p.extent_m, p.extent_n);
    const int extent_m = is_gradient ? p.extent_m : at.rows;
    const int extent_k = is_gradient ? at.rows : p.extent_k;
    const bool has_rows = at.m + half * 64 < extent_m;
    int last_place = 0;
    for (int k = 0; k < extent_k; k += tile_k, turn.advance()) {
      std::byte* place = places + turn.place * place_bytes;
      wait(&full[turn.place], turn.parity);
      if constexpr (is_gradient)
        if (k + tile_k > extent_k) clear_rows(place, extent_k - k, thread);
      if (has_rows) {
        multiply_place<kind>(sums, place, half, k > 0);
        wait_for_products<1>();  // those before: their place is free
        if (k > 0 && lane == 0) arrive(&free[last_place]);
      } else if (k > 0 && lane == 0) {
        arrive(&free[last_place]);
      }
      last_place = turn.place;
    }
    wait_for_products<0>();
    settle(sums);
    if (lane == 0) arrive(&free[last_place]);
    if (!has_rows) continue;
    const int m = at.m + warp * staging_rows;  // warps 0 to 3 are half 0
    const std::int64_t row = is_gradient ? std::int64_t{at.group} * p.extent_m + m : at.begin + m;
    store<Result, accumulates>(sums, staging + warp * staging_bytes,
                               static_cast<Result*>(p.result) + row * p.result_stride + at.n,
                               p.result_stride, extent_m - m, p.extent_n - at.n, lane);
  }
}

#endif

template <ProductKind kind, class Result, bool accumulates>
__global__ void __launch_bounds__(threads, 1) product_kernel(const __grid_constant__ Operands p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ std::byte unaligned[];
  __shared__ GroupTiles tiles;
  __shared__ std::uint64_t full[num_places];
  __shared__ std::uint64_t free[num_places];
  std::byte* places = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  if (threadIdx.x == 0) {
    for (int i = 0; i < num_places; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&free[i], multiplying_threads / 32);
    }
    publish_barriers();
  }
  tiles.set_up<kind, tile_m, tile_n>(p.groups, p.extent_m, p.extent_n);  // ends with a barrier
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x < 32) bring_operands<kind, Result>(p, tiles, places, full, free);
  } else {
    take_registers<232>();
    multiply_operands<kind, Result, accumulates>(p, tiles, places, full, free,
                                                 places + num_places * place_bytes);
  }
#endif
}

// The driver's function, looked up so that the program starts without a driver.
struct MapEncoder {
  MapEncoder() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result));
    expect(result == cudaDriverEntryPointSuccess, "cuTensorMapEncodeTiled");
    encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }
  decltype(&cuTensorMapEncodeTiled) encode = nullptr;
};

// Of a matrix of bf16, of which a copy takes box_rows rows of 64 elements.
CUtensorMap map_of(const MapEncoder& encoder, std::byte* data, std::int64_t rows, std::int64_t cols,
                   std::int64_t stride, unsigned box_rows) {
  CUtensorMap map{};
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>((rows > 1 ? stride : cols) * 2)};
  const cuuint32_t box[] = {64, box_rows};
  const cuuint32_t steps[] = {1, 1};
  const CUresult status =
      encoder.encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, sizes, strides, box, steps,
                     CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  expect(status == CUDA_SUCCESS, "an operand that the card's copy engine takes");
  return map;
}

CUtensorMap map_of(const MapEncoder& encoder, const TensorView& view, unsigned box_rows) {
  return map_of(encoder, view.kernel_bytes(), view.rows(), view.cols(), view.row_stride, box_rows);
}

int attribute(cudaDeviceAttr which) {
  int card = 0;
  int value = 0;
  check(cudaGetDevice(&card));
  check(cudaDeviceGetAttribute(&value, which, card));
  return value;
}

template <ProductKind kind, class Result, bool accumulates>
void launch(const GroupProduct& product) {
  constexpr bool is_gradient = kind == ProductKind::backward_weight;
  const TensorView& rows = product.rows;
  const TensorView& result = product.result;
  const MapEncoder& encoder = rows.device->kernel_state<MapEncoder>();
  const std::int64_t cols = result.shape[is_gradient ? 2 : 1];
  Operands p{};
  p.rows = map_of(encoder, rows, is_gradient ? 64 : tile_m);
  if (is_gradient) p.other_rows = map_of(encoder, product.other_rows, 64);
  p.result_stride = is_gradient ? cols : result.row_stride;
  p.extent_m = static_cast<int>(rows.cols());
  p.extent_n = static_cast<int>(cols);
  p.extent_k = static_cast<int>(rows.cols());
  const auto kernel = product_kernel<kind, Result, accumulates>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  const std::int64_t groups = product.num_groups();
  for (std::int64_t first = 0; first < groups; first += max_groups_of_launch) {
    const std::int64_t count = std::min<std::int64_t>(groups - first, max_groups_of_launch);
    p.groups = {product.offsets.device == nullptr ? nullptr
                                                  : pointer<std::int32_t>(product.offsets) + first,
                static_cast<int>(count), static_cast<int>(rows.rows())};
    p.result = pointer<Result>(result) + (is_gradient ? first * p.extent_m * cols : 0);
    for (std::int64_t g = 0; g < count && !is_gradient; ++g) {
      const PackedWeight& weight = product.weights[static_cast<std::size_t>(first + g)];
      p.weights[g] = map_of(encoder, weight.forward_layout().kernel_bytes(), weight.out_features(),
                            weight.in_features(), weight.in_features(),
                            kind == ProductKind::forward ? tile_n : 64);
    }
    kernel<<<attribute(cudaDevAttrMultiProcessorCount), threads, shared_bytes, stream_of(rows)>>>(
        p);
    check_launch();
  }
}

template <class Result>
void launch(const GroupProduct& product, bool is_forward) {
  if (is_forward)
    launch<ProductKind::forward, Result, false>(product);
  else if (product.accumulate == Accumulate::yes)
    launch<ProductKind::backward_input, Result, true>(product);
  else
    launch<ProductKind::backward_input, Result, false>(product);
}

}  // namespace

bool has_wgmma_product(const GroupProduct& product) {
  const auto is_aligned = [](const TensorView& view) {
    return reinterpret_cast<std::uintptr_t>(view.kernel_bytes()) % 16 == 0;
  };
  if (product.rows.dtype != DType::bf16 || !has_packets(product.rows)) return false;
  if (product.is_weight_gradient()) {
    if (!has_packets(product.other_rows) || !is_aligned(product.result)) return false;
  } else {
    if (!has_packets(product.result) || product.weights.front().in_features() % 8 != 0)
      return false;
  }
  return attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

void wgmma_product(const GroupProduct& product, bool is_forward) {
  if (product.is_weight_gradient())
    launch<ProductKind::backward_weight, float, true>(product);
  else if (product.result.dtype == DType::f32)
    launch<float>(product, is_forward);
  else
    launch<__nv_bfloat16>(product, is_forward);
}

#else

bool has_wgmma_product(const GroupProduct&) {
  return false;
}
void wgmma_product(const GroupProduct&, bool) {
  throw InternalError("this build has no kernels for compute capability 9");
}

#endif

}  // namespace switchyard::kernels::cuda
