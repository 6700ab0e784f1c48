// The CPU twins of kernels/attention/hash_classes.hpp.
#pragma once

#include "kernels/attention/hash_classes.hpp"

namespace switchyard::kernels::cpu {

void hash_keys(const TensorView& keys, std::int64_t head_dim, const TensorView& directions,
               std::int64_t num_buckets, const TensorView& buckets);
void sort_classes(const ClassQueries& asking, const TensorView& buckets, std::int64_t round,
                  const ClassPlaces& written);

}  // namespace switchyard::kernels::cpu
