#pragma once
// Windows: without a mark all functions are exported, those of the C runtime too.
#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED
#endif

EXPORTED void openmp_stand_in_limit(int n);  // it gives no more than n threads
