// The standard streams that whoever started the program has closed (`2>&-`, daemons). The system
// gives a freed number to the next file that is opened, and a message for stderr would then go into
// that file.
#pragma once

namespace switchyard {

// Holds those of descriptors 0, 1 and 2 that are closed, for this process and its children, so that
// no file gets their numbers and that reading or writing them fails (EBADF). Called before anything
// is opened. IoError where there is no /dev/null.
void hold_standard_streams();

}  // namespace switchyard
