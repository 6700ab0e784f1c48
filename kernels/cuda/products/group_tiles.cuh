// How the tiles of the products of groups are shared out, from offsets that the host never reads:
// every block works out where the tiles of each group begin, and takes tiles by their number. Large
// groups come first, so that the last tiles, which not all blocks have, are short ones.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cuda {

// Groups of one launch; more go in several.
inline constexpr int max_groups_of_launch = 128;

// What sums over k and which dimension the groups divide.
enum class ProductKind : std::uint8_t {
  forward,          // y[m, n] = sum_k x[m, k] W_g[n, k]
  backward_input,   // dx[m, n] = sum_k dy[m, k] W_g[k, n]
  backward_weight,  // dw_g[m, n] += sum_k dy[k, m] x[k, n]
};

// The rows that a launch works on.
struct GroupRows {
  const std::int32_t* offsets = nullptr;  // [num_groups + 1]; null: one group that has all rows
  int num_groups = 1;
  int num_rows = 0;  // of the operands
};

struct GroupTile {
  int group = 0;
  int begin = 0;  // the group's first row
  int rows = 0;   // of the group
  int m = 0;      // the tile's first row and column in the result of the group
  int n = 0;
};

class GroupTiles {
 public:
  // All threads of the block call it. rows_m, cols_n: of a group's result (rows_m is read for
  // backward_weight alone).
  template <ProductKind kind, int tile_m, int tile_n>
  __device__ void set_up(const GroupRows& rows, int rows_m, int cols_n) {
    const int num_groups = rows.num_groups;
    for (int g = static_cast<int>(threadIdx.x); g < num_groups; g += static_cast<int>(blockDim.x)) {
      begin_[g] = offset(rows, g);
      rows_[g] = max(offset(rows, g + 1) - begin_[g], 0);
    }
    __syncthreads();
    for (int g = static_cast<int>(threadIdx.x); g < num_groups; g += static_cast<int>(blockDim.x)) {
      int place = 0;  // among the groups by size
      for (int other = 0; other < num_groups; ++other)
        place += rows_[other] > rows_[g] || (rows_[other] == rows_[g] && other < g) ? 1 : 0;
      group_[place] = g;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const int lane = static_cast<int>(threadIdx.x);
      const int tiles_n = (cols_n + tile_n - 1) / tile_n;
      int before = 0;
      for (int first = 0; first < num_groups; first += 32) {
        const int place = first + lane;
        const bool is_group = place < num_groups;
        const int count = is_group ? rows_[group_[place]] : 0;
        int tiles = (count + tile_m - 1) / tile_m * tiles_n;
        if constexpr (kind == ProductKind::backward_weight)
          tiles = count > 0 ? (rows_m + tile_m - 1) / tile_m * tiles_n : 0;
        int through = tiles;
        for (int distance = 1; distance < 32; distance *= 2) {
          const int other = __shfl_up_sync(0xffffffffu, through, distance);
          if (lane >= distance) through += other;
        }
        if (is_group) first_tile_[place] = before + through - tiles;
        before += __shfl_sync(0xffffffffu, through, 31);
      }
      if (lane == 0) {
        num_groups_ = num_groups;
        num_tiles_ = before;
      }
    }
    __syncthreads();
  }

  __device__ int num_tiles() const { return num_tiles_; }

  // Tiles of one group follow each other, in bands of 8 columns of tiles, so that those at work
  // at a time share their operands.
  template <ProductKind kind, int tile_m, int tile_n>
  __device__ GroupTile tile(int number, int rows_m, int cols_n) const {
    int low = 0;
    int high = num_groups_;  // the last place whose first tile is at most `number`
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_tile_[middle] <= number)
        low = middle;
      else
        high = middle;
    }
    constexpr int band = 8;
    const int group = group_[low];
    const int rows = rows_[group];
    const int tiles_n = (cols_n + tile_n - 1) / tile_n;
    const int extent_m = kind == ProductKind::backward_weight ? rows_m : rows;
    const int tiles_m = (extent_m + tile_m - 1) / tile_m;
    const int within = number - first_tile_[low];
    const int first_column = within / (tiles_m * band) * band;
    const int width = min(band, tiles_n - first_column);
    const int in_band = within - first_column * tiles_m;
    return {group, begin_[group], rows, in_band / width * tile_m,
            (first_column + in_band % width) * tile_n};
  }

 private:
  // Never outside the operands, whatever the offsets hold.
  __device__ static int offset(const GroupRows& rows, int group) {
    if (rows.offsets == nullptr) return group == 0 ? 0 : rows.num_rows;
    return min(max(rows.offsets[group], 0), rows.num_rows);
  }

  int num_groups_;
  int num_tiles_;
  int begin_[max_groups_of_launch];  // by group: the first row, and how many
  int rows_[max_groups_of_launch];
  int group_[max_groups_of_launch];  // by place among the groups by size
  int first_tile_[max_groups_of_launch];
};

}  // namespace switchyard::kernels::cuda
