// Package drivertest is the suite that every storage driver passes, with every
// engine that the machine and the user have.
//
//	func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
//	func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
//	func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }
//
// What a driver may differ in comes from its capabilities, never from its name.
// Crashes are real: the test's own binary is started again, does one operation, and
// kills itself at one of its steps; then the driver is opened anew and looked at.
// [Others] runs the suite again as an ordinary user, and as the root of a user
// namespace.
package drivertest
