cd /tmp && cat >t.c <<'C'
#include <pthread.h>
#include <stdio.h>
static void *f(void *p) { *(int *)p *= 2; return p; }
int main(void) { int v[4]; pthread_t t[4];
  for (int i = 0; i < 4; i++) { v[i] = i; pthread_create(&t[i], 0, f, &v[i]); }
  for (int i = 0; i < 4; i++) { pthread_join(t[i], 0); printf("%d\n", v[i]); } return 7; }
C
gcc -O2 -pthread -o t t.c && gcc -static -pthread -o ts t.c && ./ts; echo "static $?"; gcc -o bad missing.c 2>&1 | head -1
exec ./t
