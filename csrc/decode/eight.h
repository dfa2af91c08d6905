// Arithmetic on eight numbers at a time (lanes.h). Included inside an unnamed namespace.

#define IBERIS_LANES 8
#include "lanes.h"

using Eight = Lanes;
constexpr int64_t kEight = kWide;
