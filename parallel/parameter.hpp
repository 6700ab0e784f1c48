// The parameters of a model on this rank, and how each one is spread over the ranks. This one
// record drives initialisation, gradient reduction, optimizer sharding, checkpoints and the plan.
//
// Values and gradients are fp32 and live in buckets: contiguous buffers of parameters that have the
// same replicas, in the order in which a backward pass completes them. A bucket is reduced by one
// exchange, and its replicas own equal contiguous parts of it (ZeRO stage 1: Rajbhandari et al.
// 2020): the owner of a part holds its optimizer moments, updates it and gathers it to the others.
//
// Every parameter is declared on every rank, also where a rank holds none of it, so that all ranks
// number them alike and checkpoints do not depend on the layout.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/gradient_sum.hpp"
#include "parallel/mesh.hpp"
#include "parallel/parameter_slice.hpp"

namespace switchyard {

enum class Initial : std::uint8_t { normal, ones, zeros, given };

enum class ParameterKind : std::uint8_t {
  trained,
  // Saved but not trained: no gradient, no moments, no decay; averages, biases set by rule. Who
  // changes it changes it alike on all replicas.
  state,
};
std::string_view name_of(ParameterKind kind);

struct ParameterSpec {
  std::string name;    // "layers.3.experts.down.weight": depends on the model alone
  Shape global_shape;  // likewise
  // Keys of the configuration that decide whether it is there and its shape, for messages.
  std::string keys = {};
  // What this rank holds; none: the whole. All ranks cut the same dim.
  std::optional<Slice> slice = std::nullopt;
  Axis replicas = Axis::dense_replica;   // the ranks that hold the same
  std::vector<SharedIndex> shared = {};  // ascending, the same on all ranks
  // Whether other ranks may come to hold its indices (ParameterStore::rearrange).
  bool moves = false;
  ParameterKind kind = ParameterKind::trained;
  bool decay = true;  // weight decay; not for norms and biases
  Initial initial = Initial::normal;
  float initial_std = 0.02f;
  std::vector<float> initial_values = {};  // given: of each element of the global tensor
};

class Parameter {
 public:
  Parameter(ParameterSpec spec, int index, int layer);
  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  bool is_trained() const { return spec_.kind == ParameterKind::trained; }
  int index() const { return index_; }  // in the order of the store
  int layer() const { return layer_; }  // see ParameterStore::begin_layer()
  const Slice& slice() const { return *spec_.slice; }
  Shape local_shape() const { return slice().local_shape(spec_.global_shape); }
  // Where elements [begin, begin + numel) of the local tensor lie in the global one.
  std::vector<SlicePiece> pieces(std::int64_t begin, std::int64_t numel) const {
    return pieces_of(spec_.global_shape, slice(), begin, numel);
  }
  std::int64_t global_index(std::int64_t local) const {
    return global_index_of(spec_.global_shape, slice(), local);
  }
  // Of these elements the ones that this rank counts in sums over the model, and saves: all, but of
  // shared indices those of the first rank that holds them.
  std::vector<SlicePiece> counted_pieces(std::int64_t begin, std::int64_t numel) const;
  // f32, local_shape(), contiguous. Set by ParameterStore::allocate. State has no gradient.
  const TensorView& value() const { return value_; }
  // f32, or i64 where sums are exact.
  const TensorView& gradient() const { return gradient_; }
  // The same for kernels to add to.
  kernels::GradientSum gradient_sum() const { return {gradient_, exact_}; }

 private:
  friend class ParameterStore;
  ParameterSpec spec_;  // with a slice
  int index_;
  int layer_;
  std::vector<std::int64_t> counted_elsewhere_;  // held indices, ascending
  TensorView value_;
  TensorView gradient_;
  kernels::ExactSum exact_;  // with exact sums
};

// Elements [begin, end) of a bucket that belong to one parameter.
struct BucketEntry {
  Parameter* parameter = nullptr;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct Bucket {
  Axis axis = Axis::dense_replica;
  ParameterKind kind = ParameterKind::trained;
  Group* replicas = nullptr;
  Tensor values;           // f32 [numel]
  Tensor gradients;        // f32 [numel], or i64 where sums are exact; none of state
  std::int64_t numel = 0;  // padded so that the replicas' parts are equal
  std::int64_t part = 0;   // numel / replicas->size()
  std::vector<BucketEntry>
      entries;  // ascending, each at a multiple of 64 bytes; the gaps belong to none

  std::int64_t owned_begin() const { return replicas->rank() * part; }
  std::int64_t owned_end() const { return owned_begin() + part; }
};

// A range of one parameter that this rank owns: the elements it updates, and writes to checkpoints
// if it counts them.
struct OwnedRange {
  const Parameter* parameter = nullptr;
  const Bucket* bucket = nullptr;
  std::int64_t bucket_begin = 0;  // where the range lies in the bucket
  std::int64_t local_begin = 0;   // and in the parameter's flattened local tensor
  std::int64_t numel = 0;

  // And in the global one.
  std::vector<SlicePiece> pieces() const { return parameter->pieces(local_begin, numel); }
  std::vector<SlicePiece> counted_pieces() const {
    return parameter->counted_pieces(local_begin, numel);
  }
  std::int64_t global_index(std::int64_t i) const {  // of its i-th element
    return parameter->global_index(local_begin + i);
  }
};

enum class BucketEnd : std::uint8_t {
  anywhere,
  layer,  // no bucket holds parameters of two layers, so that a layer's can be gathered alone
};

class ParameterStore {
 public:
  // exact: gradients are sums without an order, by this rule; its flag is not set.
  ParameterStore(Device& device, const Mesh& mesh,
                 const std::optional<kernels::ExactSum>& exact = {})
      : device_(device), mesh_(mesh), exact_(exact) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  // In forward order. The reference stays valid. InternalError for a slice outside the global
  // tensor and for a name that is taken.
  Parameter& add(ParameterSpec spec);
  // What is added from now on belongs to the next layer: parameters that a forward pass needs at
  // the same moment. Returns its number, from 0 on in forward order. A store that is never told has
  // one layer.
  int begin_layer();
  // Builds the buckets and sets the views. Once, after all parameters were added. bucket_bytes: the
  // most that a bucket of several parameters holds; 0 takes the mesh's parallel.bucket_megabytes.
  void allocate(std::int64_t bucket_bytes = 0, BucketEnd end = BucketEnd::anywhere);
  // Every element from (seed, name, global index): the same model on every layout. Padding stays 0.
  // Nothing happens on the plan device.
  void initialize(std::uint64_t seed);
  void zero_gradients();
  // This rank now holds these indices of the dim that is cut, in this order, as many as before, of
  // a parameter that moves; `shared` holds for all ranks from now on, and has as many ranks as
  // before. Whoever calls it moves the elements.
  void rearrange(Parameter& parameter, std::span<const std::int64_t> indices,
                 std::vector<SharedIndex> shared);

  const std::deque<Parameter>& parameters() const { return parameters_; }
  // In the order in which a backward pass completes them.
  std::vector<Bucket>& buckets() { return buckets_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // What this rank owns, in bucket order; one range a parameter at most.
  std::vector<OwnedRange> owned_ranges() const;
  // Elements of the whole model (all ranks' experts counted once).
  std::int64_t num_global_elements(ParameterKind kind = ParameterKind::trained) const;
  int num_layers() const { return num_layers_ > 0 ? num_layers_ : 1; }
  Device& device() const { return device_; }
  const Mesh& mesh() const { return mesh_; }
  const std::optional<kernels::ExactSum>& exact() const { return exact_; }
  // Rows of a unit of exact sums; 0: sums are in fp32.
  std::int64_t unit_rows() const { return exact_ ? exact_->unit_rows : 0; }
  // With exact sums: i32 [parameters], not 0 where this rank had a term that cannot be added.
  const Tensor& overflows() const { return overflows_; }

 private:
  void find_counted(Parameter& parameter) const;
  std::vector<Bucket> planned_buckets(std::int64_t bucket_bytes, BucketEnd end);
  void allocate_bucket(Bucket& bucket);

  Device& device_;
  const Mesh& mesh_;
  std::optional<kernels::ExactSum> exact_;
  Tensor overflows_;
  std::deque<Parameter> parameters_;
  std::set<std::string> names_;
  std::vector<Bucket> buckets_;
  int num_layers_ = 0;
  bool allocated_ = false;
};

}  // namespace switchyard
