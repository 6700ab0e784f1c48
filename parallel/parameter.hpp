// The parameters of a model on this rank, and how each one is spread over the ranks. This one
// record drives initialisation, gradient reduction, optimizer sharding, checkpoints and the plan.
//
// Values and gradients are fp32 and live in buckets: contiguous buffers of parameters that have the
// same replicas, in the order in which a backward pass completes them. A bucket is reduced by one
// exchange, and its replicas own equal contiguous parts of it (ZeRO stage 1: Rajbhandari et al.
// 2020): the owner of a part holds its optimizer moments, updates it and gathers it to the others.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "parallel/mesh.hpp"

namespace switchyard {

enum class Initial : std::uint8_t { normal, ones, zeros };

struct ParameterSpec {
  std::string name;    // "layers.3.experts.down.weight": depends on the model alone
  Shape global_shape;  // likewise
  // Rows (dim 0) that this rank holds; experts are split there, everything else is whole.
  std::int64_t first_row = 0;
  std::int64_t num_rows = 0;
  Axis replicas = Axis::dense_replica;  // the ranks that hold the same rows
  bool decay = true;                    // weight decay; not for norms and biases
  Initial initial = Initial::normal;
  float initial_std = 0.02f;
};

class Parameter {
 public:
  Parameter(ParameterSpec spec, int index);
  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  int index() const { return index_; }  // in the order of the store
  Shape local_shape() const { return spec_.global_shape.with_dim0(spec_.num_rows); }
  // f32, local_shape(), contiguous. Set by ParameterStore::allocate.
  const TensorView& value() const { return value_; }
  const TensorView& gradient() const { return gradient_; }

 private:
  friend class ParameterStore;
  ParameterSpec spec_;
  int index_;
  TensorView value_;
  TensorView gradient_;
};

// Elements [begin, end) of a bucket that belong to one parameter.
struct BucketEntry {
  Parameter* parameter = nullptr;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct Bucket {
  Axis axis = Axis::dense_replica;
  Group* replicas = nullptr;
  Tensor values;                     // f32 [numel]
  Tensor gradients;                  // f32 [numel]
  std::int64_t numel = 0;            // padded so that the replicas' parts are equal
  std::int64_t part = 0;             // numel / replicas->size()
  std::vector<BucketEntry> entries;  // ascending, each at a multiple of 64 bytes; the gaps belong to none

  std::int64_t owned_begin() const { return replicas->rank() * part; }
  std::int64_t owned_end() const { return owned_begin() + part; }
};

// A range of one parameter that this rank owns: the elements it updates and writes to checkpoints.
struct OwnedRange {
  const Parameter* parameter = nullptr;
  const Bucket* bucket = nullptr;
  std::int64_t bucket_begin = 0;  // where the range lies in the bucket
  std::int64_t global_begin = 0;  // flat index in the parameter's global tensor
  std::int64_t numel = 0;
};

class ParameterStore {
 public:
  ParameterStore(Device& device, const Mesh& mesh) : device_(device), mesh_(mesh) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  // In forward order. The reference stays valid. InternalError for rows outside the global tensor
  // and for a name that is taken.
  Parameter& add(ParameterSpec spec);
  // Builds the buckets and sets the views. Once, after all parameters were added. bucket_bytes: the
  // most that a bucket of several parameters holds; 0 takes the mesh's parallel.bucket_megabytes.
  void allocate(std::int64_t bucket_bytes = 0);
  // Every element from (seed, name, global index): the same model on every layout. Padding stays 0.
  // Nothing happens on the plan device.
  void initialize(std::uint64_t seed);
  void zero_gradients();

  const std::deque<Parameter>& parameters() const { return parameters_; }
  // In the order in which a backward pass completes them.
  std::vector<Bucket>& buckets() { return buckets_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // What this rank owns, in bucket order.
  std::vector<OwnedRange> owned_ranges() const;
  // Elements of the whole model (all ranks' experts counted once).
  std::int64_t num_global_elements() const;
  Device& device() const { return device_; }
  const Mesh& mesh() const { return mesh_; }

 private:
  std::vector<Bucket> planned_buckets(std::int64_t bucket_bytes);
  void allocate_bucket(Bucket& bucket);

  Device& device_;
  const Mesh& mesh_;
  std::deque<Parameter> parameters_;
  std::set<std::string> names_;
  std::vector<Bucket> buckets_;
  bool allocated_ = false;
};

}  // namespace switchyard
