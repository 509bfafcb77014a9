//! The modelled runtime that the machine is tested against: it does what it is told and may crash between calls.


