// What the tensors of published models are called, part by part; a family's table of names is some
// of these parts (trainer/families/family.hpp). {l} is the layer's number, {e} the expert's.
#pragma once

#include <initializer_list>
#include <vector>

#include "trainer/families/family.hpp"

namespace switchyard::family_names {

using Rules = std::vector<NameRule>;
using Skips = std::vector<Family::Skipped>;

// Of one part of a model each.
const Rules& attention();
const Rules& latent_attention();
const Rules& qkv_bias();
const Rules& output_bias();
const Rules& qk_norm();
const Rules& sinks();
const Rules& dense();
const Rules& experts();
const Rules& mixtral_experts();
const Rules& stacked_experts();  // gpt-oss: one tensor for all experts of a layer
const Rules& shared_expert();    // one, with a gate
const Rules& shared_experts();
const Rules& router_bias();

// These, and what lies outside of layers.
Rules joined(std::initializer_list<Rules> parts);

// Tensors that are skipped.
const Skips& old_buffers();
const Skips& next_token_layers();

}  // namespace switchyard::family_names
