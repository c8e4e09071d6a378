#include "core/tracks.h"
