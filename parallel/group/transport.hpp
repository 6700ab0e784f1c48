// What MPI moves bytes with, as far as the library tells: for reports, not for decisions.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct Transport {
  std::string library;  // first line of MPI's own version text
  // Open MPI's message layer in use: "ob1" (its own, over carriers), "ucx" or "cm" (a network
  // library below). Empty: the library does not tell.
  std::string layer;
  // Below ob1, what is open: "vader" or "sm" (memory shared within a host), "tcp", "self", ...
  // Below cm: the network library.
  std::vector<std::string> carriers;
  std::string tcp_devices;  // what tcp was limited to; empty: all devices
  // How vader copies between ranks of a host: "cma" and "xpmem" copy once, "none" twice.
  std::string single_copy;

  bool has(const std::string& carrier) const;
};

// MPI is running. Asks MPI's tool interface; not collective.
Transport find_transport();

}  // namespace switchyard
