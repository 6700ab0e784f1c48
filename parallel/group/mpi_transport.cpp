#include <mpi.h>

#include <algorithm>
#include <array>
#include <string>

#include "parallel/group/mpi_call.hpp"
#include "parallel/group/transport.hpp"

namespace switchyard {

namespace {

// MPI's control variables by name. Open MPI withdraws those of components that it closed, so a
// component is in use if one of its variables is known.
class ControlVariables {
 public:
  ControlVariables() {
    int provided = 0;
    mpi::check(MPI_T_init_thread(MPI_THREAD_SINGLE, &provided), "MPI_T_init_thread");
  }
  ~ControlVariables() { MPI_T_finalize(); }
  ControlVariables(const ControlVariables&) = delete;
  ControlVariables& operator=(const ControlVariables&) = delete;

  bool has(const std::string& name) const { return index_of(name) >= 0; }

  // The value of a text or whole number; empty if there is no such variable.
  std::string text(const std::string& name) const {
    const int index = index_of(name);
    MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
    int count = 0;
    if (index < 0 || MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count) != MPI_SUCCESS)
      return {};
    // Room for any type: a variable's elements have 8 bytes at most.
    std::string value(static_cast<std::size_t>(std::max(count, 1)) * 8 + 1, '\0');
    const bool done = MPI_T_cvar_read(handle, value.data()) == MPI_SUCCESS;
    MPI_T_cvar_handle_free(&handle);
    if (!done) return {};
    value.resize(value.find('\0'));
    return value;
  }

  // The name of an enumerated variable's value.
  std::string choice(const std::string& name) const;

 private:
  static int index_of(const std::string& name) {
    int index = -1;
    return MPI_T_cvar_get_index(name.c_str(), &index) == MPI_SUCCESS ? index : -1;
  }
};

std::string ControlVariables::choice(const std::string& name) const {
  const int index = index_of(name);
  if (index < 0) return {};
  std::array<char, 256> found_name{};
  std::array<char, 1024> description{};
  int name_length = static_cast<int>(found_name.size());
  int description_length = static_cast<int>(description.size());
  int verbosity = 0;
  int binding = 0;
  int scope = 0;
  MPI_Datatype type = MPI_DATATYPE_NULL;
  MPI_T_enum values = MPI_T_ENUM_NULL;
  if (MPI_T_cvar_get_info(index, found_name.data(), &name_length, &verbosity, &type, &values,
                          description.data(), &description_length, &binding,
                          &scope) != MPI_SUCCESS ||
      type != MPI_INT || values == MPI_T_ENUM_NULL)
    return {};
  MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
  int count = 0;
  if (MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count) != MPI_SUCCESS || count != 1)
    return {};
  int value = 0;
  const bool done = MPI_T_cvar_read(handle, &value) == MPI_SUCCESS;
  MPI_T_cvar_handle_free(&handle);
  int num_values = 0;
  name_length = static_cast<int>(found_name.size());
  if (!done ||
      MPI_T_enum_get_info(values, &num_values, found_name.data(), &name_length) != MPI_SUCCESS)
    return {};
  for (int i = 0; i < num_values; ++i) {
    int item = 0;
    int length = static_cast<int>(found_name.size());
    if (MPI_T_enum_get_item(values, i, &item, found_name.data(), &length) == MPI_SUCCESS &&
        item == value)
      return found_name.data();
  }
  return {};
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  mpi::check(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string whole(text.data());
  return whole.substr(0, whole.find_first_of(",\n"));
}

}  // namespace

bool Transport::has(const std::string& carrier) const {
  return std::find(carriers.begin(), carriers.end(), carrier) != carriers.end();
}

Transport find_transport() {
  Transport transport;
  transport.library = library_version();
  const ControlVariables variables;
  for (const std::string layer : {"ob1", "ucx", "cm"})
    if (variables.has("pml_" + layer + "_priority") || variables.has("pml_" + layer + "_verbose"))
      transport.layer = layer;
  if (transport.layer == "ob1") {
    for (const std::string carrier :
         {"self", "vader", "sm", "tcp", "openib", "uct", "usnic", "ofi"})
      if (variables.has("btl_" + carrier + "_eager_limit")) transport.carriers.push_back(carrier);
    transport.tcp_devices = variables.text("btl_tcp_if_include");
    transport.single_copy = variables.choice("btl_vader_single_copy_mechanism");
  } else if (transport.layer == "cm") {
    for (const std::string carrier : {"ofi", "psm2", "psm", "portals4"})
      if (variables.has("mtl_" + carrier + "_priority")) transport.carriers.push_back(carrier);
  }
  return transport;
}

}  // namespace switchyard
