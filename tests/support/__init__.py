"""What tests of every part share: small images, the sanitizers. No test is in here."""
