#pragma once

void openmp_stand_in_limit(int n);  // it gives no more than n threads
