//! Setters of configurations, in one form for all crates of the project.

/// A setter for each field, to chain. For the crates of this project only.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($($setter:ident => $field:ident: $type:ty,)+) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $setter(self, $field: $type) -> Self {
                Self { $field, ..self }
            }
        )+
    };
}
