mkdir /root/p && cd /root/p
for i in 1 2 3 4 5 6; do echo "int f$i(void){return $i;}" >f$i.c; done
echo 'int f1(void),f6(void); int main(void){return f1()+f6();}' >main.c
printf 'OBJS=main.o f1.o f2.o f3.o f4.o f5.o f6.o\nprog: $(OBJS)\n\t@gcc -o $@ $(OBJS) && echo linked\n%%.o: %%.c\n\t@gcc -c -o $@ $<\n' >Makefile
make -j2 && make -q; echo "up to date $?"; ls *.o | wc -l
exec ./prog
