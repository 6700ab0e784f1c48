// From the keys `activations` to what the model takes: a policy for each layer, the store of
// spilled ones, and the budget of their pool.
#pragma once

#include <memory>

#include "model/layer_records.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// Null if no layer spills, or on the plan device if the store takes no memory. IoError if the
// store's file cannot be made.
std::unique_ptr<ActivationStore> make_activation_store(Device& device, const Config& config,
                                                       int rank);
// store: as made above; borrowed.
ActivationOptions activation_options(const Config& config, ActivationStore* store,
                                     std::int64_t planned_rows);
// activations.folder, where `auto` stands for $TMPDIR, or /tmp without it.
std::string spill_folder(const ActivationsConfig& config);

}  // namespace switchyard
