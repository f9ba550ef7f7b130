exec perl -e '
my %h = map { $_ => $_ ** 2 } 1 .. 10; print join(",", map { "$_=$h{$_}" } sort { $a <=> $b } keys %h), "\n";
my $pid = fork; if (!$pid) { print "child\n"; exit 5 } waitpid $pid, 0; print $? >> 8, "\n";
open my $f, ">", "/tmp/f"; print $f "line $_\n" for 1 .. 1000; close $f; open $f, "<", "/tmp/f"; my @l = <$f>; print scalar(@l), " $l[-1]";
$SIG{ALRM} = sub { print "alarm\n" }; alarm 1; sleep 5; print `echo sub`; exit 7'
