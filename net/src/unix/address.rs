//! Addresses of local sockets, unix(7).
use abi::Errno;

/// `AF_UNIX`.
pub const AF_UNIX: u16 = 1;
/// `sizeof(sun_path)`.
const PATH_LEN: usize = 108;

/// A name a socket has or is to get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnixAddress {
    /// None.
    #[default]
    Unnamed,
    /// A file.
    Path(Vec<u8>),
    /// A name in the abstract namespace, without its leading zero byte.
    Abstract(Vec<u8>),
}

impl UnixAddress {
    /// Decodes a `struct sockaddr_un` of any length.
    ///
    /// # Errors
    /// `EINVAL` for another family or a length that unix(7) does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, Errno> {
        let (family, path) = bytes.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        if u16::from_ne_bytes(*family) != AF_UNIX || path.len() > PATH_LEN {
            return Err(Errno::EINVAL);
        }
        match path.split_first() {
            None => Ok(Self::Unnamed),
            Some((0, name)) => Ok(Self::Abstract(name.to_vec())),
            Some(_) => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                Ok(Self::Path(path.get(..end).unwrap_or(path).to_vec()))
            }
        }
    }

    /// The `struct sockaddr_un`, as long as getsockname(2) tells.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = AF_UNIX.to_ne_bytes().to_vec();
        match self {
            Self::Unnamed => {}
            Self::Path(path) => {
                out.extend(path);
                out.push(0);
            }
            Self::Abstract(name) => {
                out.push(0);
                out.extend(name);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(path: &[u8]) -> Vec<u8> {
        [&AF_UNIX.to_ne_bytes()[..], path].concat()
    }

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!(UnixAddress::decode(&raw(b"")), Ok(UnixAddress::Unnamed));
        assert_eq!(UnixAddress::decode(&raw(b"/a\0junk")), Ok(UnixAddress::Path(b"/a".to_vec())));
        assert_eq!(UnixAddress::decode(&raw(b"\0a\0b")), Ok(UnixAddress::Abstract(b"a\0b".to_vec())));
        assert_eq!(UnixAddress::decode(&raw(&[b'x'; 109])), Err(Errno::EINVAL));
        assert_eq!(UnixAddress::decode(&[1]), Err(Errno::EINVAL));
        assert_eq!(UnixAddress::decode(&[2, 0, 0, 0]), Err(Errno::EINVAL));
        for address in [&b""[..], b"/tmp/x\0", b"\0name"] {
            assert_eq!(UnixAddress::decode(&raw(address)).map(|a| a.encode()), Ok(raw(address)));
        }
    }
}
