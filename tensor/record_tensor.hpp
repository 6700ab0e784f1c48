// The tensors of a record: what a layer's forward pass leaves for its backward pass. A record names
// its own tensors by a function for_each_tensor(visit), and hands on to the records inside it.
// Whatever deals with whole records (spilling, counting memory, growing buffers, capturing) learns
// of their tensors there and nowhere else.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "tensor/tensor.hpp"

namespace switchyard {

struct RecordTensor {
  std::string name;           // "attention.qkv": unique within the record
  Tensor* tensor = nullptr;   // of the record
  std::int64_t num_rows = 0;  // in use in this pass
  bool follows_rows = false;  // growable with the rows that the router sends, else of fixed size

  TensorView used() const { return tensor->view().slice_rows(0, num_rows); }
};

using RecordVisitor = std::function<void(const RecordTensor&)>;

// For use in for_each_tensor: a tensor of fixed size, or a growable one of which `num_rows` rows
// are in use. One that the record does without, having never made it, is left out.
void visit_tensor(const RecordVisitor& visit, std::string_view name, Tensor& tensor);
void visit_rows(const RecordVisitor& visit, std::string_view name, Tensor& tensor,
                std::int64_t num_rows);
// For a record inside another: tells `visit` of its tensors as `prefix`.name. Borrows `visit`.
RecordVisitor with_prefix(std::string_view prefix, const RecordVisitor& visit);

}  // namespace switchyard
