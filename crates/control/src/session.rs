//! Sessions: what a login gives. A session is a signed text that its holder shows with every call; nothing of it is
//! kept, so checking it costs no trip to the store.
//!
//! ```text
//!   base64url( version 1 | key 4 | flags 1 | user 16 | scope 1+16 | methods 1 | began 8 | ends 8 | audit 16
//!              | parent 16, if flagged | application credential 16, if flagged | HMAC-SHA256 of all that 32 )
//! ```
//!
//! The text says who and where; what the holder may do there is looked up in the mirror each time. So a role, a user,
//! a project or a credential that goes is gone from every session at once, and so is a session that was ended.

use crate::{Caller, Control, Error, Proof, Result, Role as Level};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use model::{
    application_credential::ApplicationCredential,
    domain::Domain,
    error::Code,
    id::{ApplicationCredentialId, DomainId, ProjectId, UserId},
    project::Project,
    record::Record,
    role::{self, Role},
    user::User,
};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::sync::Arc;
use store::{Stored, Tx};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const HAS_PARENT: u8 = 1;
const HAS_CREDENTIAL: u8 = 2;
/// Longest session text that is looked at.
pub const SESSION_BYTES_MAX: usize = 512;

/// A key that signs sessions. It lives in the store, whose file only its owner can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Eight hex digits that name it in a session.
    pub id: String,
    /// The secret, in hex.
    pub secret: String,
    /// When it was made; the newest signs, all verify.
    pub created_at: Timestamp,
}

impl Record for SigningKey {
    const TABLE: &'static str = "signing_key";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// A session that was ended before its time. Forgotten when that time has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// Audit id in hex.
    pub audit: String,
    /// When it would have ended.
    pub until: Timestamp,
}

impl Record for EndedSession {
    const TABLE: &'static str = "ended_session";
    fn key(&self) -> String {
        self.audit.clone()
    }
}

/// Where a session works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nowhere: it can look at its holder and ask for another session.
    Unscoped,
    /// In a project.
    Project(ProjectId),
    /// In a domain.
    Domain(DomainId),
    /// In the whole cloud.
    System,
}

/// How the holder proved to be the user. Several may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u8);

impl Methods {
    /// By password.
    pub const PASSWORD: Self = Self(1);
    /// By another session.
    pub const TOKEN: Self = Self(2);
    /// By an application credential.
    pub const APPLICATION_CREDENTIAL: Self = Self(4);

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names on the wire.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (Self::PASSWORD, "password"),
            (Self::TOKEN, "token"),
            (Self::APPLICATION_CREDENTIAL, "application_credential"),
        ];
        all.into_iter().filter(|(one, _)| self.0 & one.0 != 0).map(|(_, name)| name).collect()
    }
}

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose.
    pub user: UserId,
    /// Where.
    pub scope: Scope,
    /// How it came about.
    pub methods: Methods,
    /// When it began, to the microsecond.
    pub began: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
    /// Identity that is told to everyone.
    pub audit: [u8; 16],
    /// Audit id of the first session of a chain of sessions by session.
    pub parent: Option<[u8; 16]>,
    /// The credential that it acts by.
    pub credential: Option<ApplicationCredentialId>,
}

/// A session that holds, with all that it stands for.
#[derive(Debug, Clone)]
pub struct Session {
    /// What it says of itself.
    pub claims: Claims,
    /// Whose.
    pub user: Arc<Stored<User>>,
    /// The user's domain.
    pub domain: Arc<Stored<Domain>>,
    /// Where it works.
    pub place: Place,
    /// Roles there, the implied ones included, by name.
    pub roles: Vec<Arc<Stored<Role>>>,
    /// The credential that it acts by.
    pub credential: Option<Arc<Stored<ApplicationCredential>>>,
}

/// A scope with its records.
#[derive(Debug, Clone)]
pub enum Place {
    /// Nowhere.
    Unscoped,
    /// In a project of a domain.
    Project(Arc<Stored<Project>>, Arc<Stored<Domain>>),
    /// In a domain.
    Domain(Arc<Stored<Domain>>),
    /// In the whole cloud.
    System,
}

impl Session {
    /// Whether a role of this name holds here.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|r| r.record.domain.is_none() && r.record.name.as_str() == name)
    }

    /// Whether the holder runs the cloud.
    pub fn is_admin(&self) -> bool {
        self.has_role(role::ADMIN)
    }

    /// The highest level that the roles give.
    pub fn level(&self) -> Option<Level> {
        let levels = [
            (role::ADMIN, Level::Admin),
            (role::MANAGER, Level::Member),
            (role::MEMBER, Level::Member),
            (role::READER, Level::Reader),
        ];
        levels.into_iter().find(|(name, _)| self.has_role(name)).map(|(_, level)| level)
    }

    /// The project that it works in.
    pub fn project(&self) -> Option<&Arc<Stored<Project>>> {
        match &self.place {
            Place::Project(project, _) => Some(project),
            _ => None,
        }
    }

    /// Who the holder is for the rest of the cloud: nobody, outside of a project or without a role that means
    /// something there.
    pub fn caller(&self, request_id: &str) -> Option<Caller> {
        let project = self.project()?.record.meta.id;
        let actor = match &self.credential {
            Some(credential) => format!("user {} by {}", self.user.record.name, credential.record.name),
            None => format!("user {}", self.user.record.name),
        };
        let proof = Proof::Session(Arc::new(self.claims.clone()));
        Some(Caller { project, role: self.level()?, actor, request_id: request_id.to_string(), proof })
    }
}

impl Claims {
    fn bytes(&self, key: [u8; 4]) -> Vec<u8> {
        let (scope, place) = match self.scope {
            Scope::Unscoped => (0, [0; 16]),
            Scope::Project(id) => (1, id.0.into_bytes()),
            Scope::Domain(id) => (2, id.0.into_bytes()),
            Scope::System => (3, [0; 16]),
        };
        let flags = u8::from(self.parent.is_some()) * HAS_PARENT
            + u8::from(self.credential.is_some()) * HAS_CREDENTIAL;
        let mut bytes = vec![VERSION];
        bytes.extend(key);
        bytes.push(flags);
        bytes.extend(self.user.0.as_bytes());
        bytes.push(scope);
        bytes.extend(place);
        bytes.push(self.methods.0);
        bytes.extend(self.began.as_microsecond().to_be_bytes());
        bytes.extend(self.ends.as_microsecond().to_be_bytes());
        bytes.extend(self.audit);
        bytes.extend(self.parent.iter().flatten());
        bytes.extend(self.credential.iter().flat_map(|id| id.0.into_bytes()));
        bytes
    }

    /// Reads what [`Self::bytes`] wrote and a key vouched for.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(5..)?;
        let [flags] = take(&mut rest)?;
        let user = UserId(uuid::Uuid::from_bytes(take(&mut rest)?));
        let [scope] = take(&mut rest)?;
        let place = uuid::Uuid::from_bytes(take(&mut rest)?);
        let [methods] = take(&mut rest)?;
        let began = Timestamp::from_microsecond(i64::from_be_bytes(take(&mut rest)?)).ok()?;
        let ends = Timestamp::from_microsecond(i64::from_be_bytes(take(&mut rest)?)).ok()?;
        let audit = take(&mut rest)?;
        let parent = if flags & HAS_PARENT != 0 { Some(take(&mut rest)?) } else { None };
        let credential = if flags & HAS_CREDENTIAL != 0 { Some(take(&mut rest)?) } else { None };
        let scope = match scope {
            0 => Scope::Unscoped,
            1 => Scope::Project(ProjectId(place)),
            2 => Scope::Domain(DomainId(place)),
            3 => Scope::System,
            _ => return None,
        };
        let credential = credential.map(|bytes| ApplicationCredentialId(uuid::Uuid::from_bytes(bytes)));
        let claims = Self { user, scope, methods: Methods(methods), began, ends, audit, parent, credential };
        rest.is_empty().then_some(claims)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*first)
}

fn mac(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

/// Signs claims.
fn sign(claims: &Claims, key: &SigningKey) -> Option<String> {
    let id: [u8; 4] = hex::decode(&key.id).ok()?.try_into().ok()?;
    let secret = hex::decode(&key.secret).ok()?;
    let mut bytes = claims.bytes(id);
    let signature = mac(&secret).chain_update(&bytes).finalize().into_bytes();
    bytes.extend(signature);
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Claims of a text that one of the keys signed. The comparison takes the same time wherever texts differ.
fn verify(text: &str, key: impl Fn(&str) -> Option<SigningKey>) -> Option<Claims> {
    if text.len() > SESSION_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
    if *signed.first()? != VERSION {
        return None;
    }
    let key = key(&hex::encode(signed.get(1..5)?))?;
    let secret = hex::decode(&key.secret).ok()?;
    mac(&secret).chain_update(signed).verify_slice(signature).ok()?;
    Claims::read(signed)
}

impl Control {
    /// Makes the key that signs sessions, unless there is one.
    pub(crate) async fn begin_signing(&self) -> Result<()> {
        if self.store.mirror().count::<SigningKey>() > 0 {
            return Ok(());
        }
        let mut random = [0; 4 + KEY_BYTES];
        rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut random)
            .map_err(|e| Error::new(Code::Internal, format!("the kernel gives no random bytes: {e}")))?;
        let (id, secret) = random.split_at(4);
        let key = SigningKey { id: hex::encode(id), secret: hex::encode(secret), created_at: self.now() };
        self.transact(|tx| {
            tx.raw().create(&key);
            Ok(())
        })
        .await
    }

    /// Signs a session.
    ///
    /// # Errors
    /// `internal` if the cloud has no key.
    pub fn sign_session(&self, claims: &Claims) -> Result<String> {
        let newest = self.store.list::<SigningKey>().into_iter().max_by_key(|k| k.record.created_at);
        newest
            .and_then(|key| sign(claims, &key.record))
            .ok_or_else(|| Error::new(Code::Internal, "there is no key to sign sessions with"))
    }

    /// Begins a session; the caller has made sure of the user. `chain` is the session that it follows from.
    ///
    /// # Errors
    /// `unauthenticated` if the user may not work in that scope.
    pub fn open_session(
        &self,
        user: UserId,
        scope: Scope,
        methods: Methods,
        credential: Option<ApplicationCredentialId>,
        chain: Option<&Claims>,
    ) -> Result<(String, Session)> {
        let now = self.now();
        // Microseconds are what a session keeps; a session by session never outlives the first.
        let began = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let ends = began.saturating_add(self.rules.session_lifetime).unwrap_or(Timestamp::MAX);
        let claims = Claims {
            user,
            scope,
            methods: chain.map_or(methods, |c| c.methods.and(methods)),
            began,
            ends: chain.map_or(ends, |c| c.ends.min(ends)),
            audit: rand::random(),
            parent: chain.map(|c| c.parent.unwrap_or(c.audit)),
            credential,
        };
        let session = self.resolve_session(claims)?;
        Ok((self.sign_session(&session.claims)?, session))
    }

    /// The session that a text stands for.
    ///
    /// # Errors
    /// `unauthenticated`, without saying why.
    pub fn session(&self, text: &str) -> Result<Session> {
        let key = |id: &str| self.store.get::<SigningKey>(id).map(|k| k.record.clone());
        let claims = verify(text, key).ok_or_else(refused)?;
        if self.now() >= claims.ends {
            return Err(refused());
        }
        self.standing_session(claims)
    }

    /// The session of claims that were once signed, unless it was ended before its time.
    fn standing_session(&self, claims: Claims) -> Result<Session> {
        if self.store.get::<EndedSession>(&hex::encode(claims.audit)).is_some() {
            return Err(refused());
        }
        self.resolve_session(claims)
    }

    /// Whether a project is there and works: it and its domain may be disabled.
    pub fn is_at_work(&self, project: ProjectId) -> bool {
        self.place_of(Scope::Project(project)).is_ok()
    }

    /// Whether the caller may still do what it could when it was let in: nobody ended its token or session, user or project
    /// since, nor has its role become a lower one. The end of a login's own time ends nothing that is under way.
    pub fn still_holds(&self, caller: &Caller) -> bool {
        match &caller.proof {
            Proof::Peer => true,
            Proof::Token(id) => {
                let token = self.token(id);
                token.is_some_and(|t| t.record.role >= caller.role && self.is_at_work(t.record.project))
            }
            Proof::Session(claims) => self
                .standing_session(Claims::clone(claims))
                .is_ok_and(|session| session.level().is_some_and(|level| level >= caller.role)),
        }
    }

    /// Whether the caller may make what acts for it later: an application credential may not, unless its user said so.
    pub(crate) fn may_vouch(&self, caller: &Caller) -> bool {
        match &caller.proof {
            Proof::Peer | Proof::Token(_) => true,
            Proof::Session(claims) => {
                self.standing_session(Claims::clone(claims)).is_ok_and(|session| session.is_unrestricted())
            }
        }
    }

    /// Looks up all that a session stands for.
    fn resolve_session(&self, claims: Claims) -> Result<Session> {
        let user = self.store.get::<User>(&claims.user.to_string()).ok_or_else(refused)?;
        if !user.record.enabled || user.record.ended(claims.began) {
            return Err(refused());
        }
        let domain = self.enabled_domain(user.record.domain)?;
        let credential = match claims.credential {
            None => None,
            Some(id) => {
                let found = self.store.get::<ApplicationCredential>(&id.to_string()).ok_or_else(refused)?;
                let ended = found.record.expires_at.is_some_and(|end| self.now() >= end);
                let fits =
                    claims.scope == Scope::Project(found.record.project) && found.record.user == claims.user;
                if ended || !fits {
                    return Err(refused());
                }
                Some(found)
            }
        };
        let place = self.place_of(claims.scope)?;
        let mut roles = self.effective_roles(claims.user, claims.scope);
        if let Some(credential) = &credential {
            let granted = self.implied(credential.record.roles.iter().copied());
            roles.retain(|r| granted.contains(&r.record.id));
        }
        if roles.is_empty() && claims.scope != Scope::Unscoped {
            return Err(refused());
        }
        Ok(Session { claims, user, domain, place, roles, credential })
    }

    fn place_of(&self, scope: Scope) -> Result<Place> {
        Ok(match scope {
            Scope::Unscoped => Place::Unscoped,
            Scope::System => Place::System,
            Scope::Domain(id) => Place::Domain(self.enabled_domain(id)?),
            Scope::Project(id) => {
                let project = self.get::<Project>(id).filter(|p| p.record.enabled).ok_or_else(refused)?;
                let domain = self.enabled_domain(project.record.domain)?;
                Place::Project(project, domain)
            }
        })
    }

    fn enabled_domain(&self, id: DomainId) -> Result<Arc<Stored<Domain>>> {
        self.store.get::<Domain>(&id.to_string()).filter(|d| d.record.enabled).ok_or_else(refused)
    }

    /// Ends one session before its time.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn end_session(&self, claims: &Claims) -> Result<()> {
        let mut tx = Tx::new();
        tx.put(&EndedSession { audit: hex::encode(claims.audit), until: claims.ends });
        self.store.commit(tx).await.map(|_| ()).map_err(|e| Error::new(Code::Unavailable, e))
    }
}

/// The refusal of whoever could not prove who they are; it never says why.
pub fn refused() -> Error {
    Error::new(Code::Unauthenticated, "The request you have made requires authentication.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey {
            id: hex::encode([n; 4]),
            secret: hex::encode([n; KEY_BYTES]),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn claims() -> Claims {
        Claims {
            user: UserId::from_random([1; 16]),
            scope: Scope::Project(ProjectId::from_random([2; 16])),
            methods: Methods::PASSWORD,
            began: Timestamp::from_microsecond(1_700_000_000_000_001).unwrap(),
            ends: Timestamp::from_microsecond(1_700_000_000_000_002).unwrap(),
            audit: [3; 16],
            parent: None,
            credential: None,
        }
    }

    #[test]
    fn sessions_read_back() {
        let plain = claims();
        let full = Claims {
            scope: Scope::System,
            parent: Some([4; 16]),
            credential: Some(ApplicationCredentialId::from_random([5; 16])),
            methods: Methods::TOKEN.and(Methods::PASSWORD),
            ..claims()
        };
        for claims in [plain, full] {
            let text = sign(&claims, &key(1)).unwrap();
            assert!(text.len() < 256, "{}", text.len());
            assert_eq!(verify(&text, |id| (id == "01010101").then(|| key(1))), Some(claims));
        }
    }

    #[test]
    fn a_changed_bit_a_foreign_key_and_a_cut_text_are_refused() {
        let text = sign(&claims(), &key(1)).unwrap();
        let known = |_: &str| Some(key(1));
        assert!(verify(&text, known).is_some());
        assert!(verify(&text, |_| None).is_none() && verify(&text, |_| Some(key(2))).is_none());
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(verify(&URL_SAFE_NO_PAD.encode(&changed), known).is_none(), "byte {at}");
            assert!(verify(&URL_SAFE_NO_PAD.encode(&bytes[..at]), known).is_none(), "{at} bytes");
        }
        for text in ["", "x", "holm_0_0", &"A".repeat(SESSION_BYTES_MAX + 1)] {
            assert!(verify(text, known).is_none(), "{text}");
        }
    }
}
