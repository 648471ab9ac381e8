/* Put in front of every C file that a dependency compiles; see .cargo/config.toml.
 * glommio 0.9 ships liburing 2.0, whose configure script guesses whether the system defines `struct open_how`
 * with other flags than it later compiles with; under gcc 15 and glibc 2.42 the two disagree. Its compat.h is
 * therefore left out, and what it would have provided comes from the kernel's headers, the same everywhere.
 * Empty for the assembler, which would choke on C in aws-lc's .S files. */
#ifndef __ASSEMBLER__
#define LIBURING_COMPAT_H
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/time_types.h>
#endif
