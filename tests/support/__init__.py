"""What tests of every part share: loop filesystems, exact listings of trees, small images. No test is in here."""
