// A fuzz target is a source that defines both of these: what a stranger's file may hold goes in,
// and the reader either refuses it with one of our errors or gives something sound; anything else
// ends the process. libFuzzer calls the first (where clang is); mutations_main.cpp, which every
// compiler can build, calls it with damaged seeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace switchyard::fuzz {

// Inputs that are read without an error, to begin from.
std::vector<std::string> seeds();

}  // namespace switchyard::fuzz
