// Whether the hosts of a job see one and the same folder. On folders of their own, ranks would
// write parts of checkpoints that none of them could ever read together, and watch over nobody.
#pragma once

#include <string>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

// Collective over `world`: the names of the hosts on which rank 0's `folder`, which exists there,
// is another one or none; empty when all share it. Network file systems get some seconds to show
// it. IoError, on all ranks, if rank 0 may not write there.
std::vector<std::string> hosts_apart(Group& world, const std::string& folder);

// IoError, on all ranks, with these names and the remedy. `key`: of the configuration.
void require_shared(Group& world, const std::string& key, const std::string& folder);

}  // namespace switchyard
