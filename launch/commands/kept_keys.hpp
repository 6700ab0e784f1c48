// Keys whose default has changed: a run that went on from a checkpoint would otherwise train
// something else than it began with.
#pragma once

#include "launch/config/config_file.hpp"

namespace switchyard {

// Where experts.balance_reduction is left out, a run goes on with that of the checkpoint it goes on
// from (checkpoint.resume); in those of versions without the key this was the mean. A warning tells
// of a value that is not the default. Collective.
void keep_balance_reduction(Group& world, LoadedConfig& loaded);

}  // namespace switchyard
