#include "parallel/group/nccl_library.hpp"

#include <dlfcn.h>
#include <fmt/core.h>

#include <string>

#include "parallel/group/nccl_group.hpp"
#include "tensor/error.hpp"

namespace switchyard::nccl {

namespace {

struct Loaded {
  Library functions;
  std::string trouble;
};

template <class Function>
void find(void* from, const char* name, Function& function, std::string& trouble) {
  function = reinterpret_cast<Function>(dlsym(from, name));
  if (function == nullptr && trouble.empty())
    trouble = fmt::format("the NCCL found has no {}: install NCCL 2.18 or newer", name);
}

Loaded load() {
  Loaded loaded;
  const std::string name = fmt::format("libnccl.so.{}", NCCL_MAJOR);
  void* from = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (from == nullptr)  // where it was when this program was built
    from = dlopen((SWITCHYARD_NCCL_LIBRARY_DIR "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (from == nullptr) {
    loaded.trouble = fmt::format(
        "{} was found neither by the loader nor in {} ({}); install NCCL, or name its "
        "folder in LD_LIBRARY_PATH",
        name, SWITCHYARD_NCCL_LIBRARY_DIR, dlerror());
    return loaded;
  }
  Library& f = loaded.functions;
  find(from, "ncclGetVersion", f.get_version, loaded.trouble);
  find(from, "ncclGetErrorString", f.error_text, loaded.trouble);
  find(from, "ncclGetLastError", f.last_error, loaded.trouble);
  find(from, "ncclGetUniqueId", f.get_unique_id, loaded.trouble);
  find(from, "ncclCommInitRankConfig", f.init_rank, loaded.trouble);
  find(from, "ncclCommGetAsyncError", f.get_async_error, loaded.trouble);
  find(from, "ncclCommFinalize", f.finalize, loaded.trouble);
  find(from, "ncclCommDestroy", f.destroy, loaded.trouble);
  find(from, "ncclCommAbort", f.abort, loaded.trouble);
  find(from, "ncclGroupStart", f.group_start, loaded.trouble);
  find(from, "ncclGroupEnd", f.group_end, loaded.trouble);
  find(from, "ncclSend", f.send, loaded.trouble);
  find(from, "ncclRecv", f.receive, loaded.trouble);
  find(from, "ncclAllGather", f.all_gather, loaded.trouble);
  find(from, "ncclAllReduce", f.all_reduce, loaded.trouble);
  find(from, "ncclBroadcast", f.broadcast, loaded.trouble);
  return loaded;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

}  // namespace

std::string find_trouble() {
  return loaded().trouble;
}

const Library& library() {
  if (!loaded().trouble.empty())
    throw ConfigError(fmt::format("parallel.backend: nccl, but {}, or write parallel.backend: mpi",
                                  loaded().trouble));
  return loaded().functions;
}

std::string version_text() {
  int version = 0;
  library().get_version(&version);  // 2.28.3 is 22803
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace switchyard::nccl
