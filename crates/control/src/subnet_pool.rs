//! Subnet pools: made, changed, removed, and subnets cut from them.

use crate::{Caller, Control, Error, Result, Role, transact::Transaction};
use ipnet::IpNet;
use model::{
    address::overlap,
    address_scope::AddressScope,
    error::Code,
    id::{ProjectId, SubnetPoolId},
    meta::{Labels, Meta},
    subnet::Subnet,
    subnet_pool::{POOLS_MAX, PoolError, SubnetPool},
};

/// A subnet pool to be made.
#[derive(Debug, Clone, Default)]
pub struct NewSubnetPool {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Ranges, all of one family.
    pub ranges: Vec<IpNet>,
    /// Shortest prefix; 8 (IPv4) or 64 when `None`.
    pub min_prefix_len: Option<u8>,
    /// Prefix of a subnet that says nothing; the shortest when `None`.
    pub default_prefix_len: Option<u8>,
    /// Longest prefix; all bits when `None`.
    pub max_prefix_len: Option<u8>,
    /// Most that each project may have of it.
    pub quota: Option<u64>,
    /// Address scope.
    pub scope: Option<String>,
    /// Other projects may use it (admins).
    pub shared: bool,
    /// The pool of its family that is used where none is named (admins).
    pub is_default: bool,
}

/// A subnet to be cut from a pool.
#[derive(Debug, Clone, Default)]
pub struct PoolAsked {
    /// The pool; the default one of the family when `None`.
    pub pool: Option<String>,
    /// IPv6, where the pool is not named.
    pub ipv6: bool,
    /// Prefix length; the pool's own when `None`.
    pub prefix_len: Option<u8>,
}

impl Control {
    /// Makes a subnet pool.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `conflict` for ranges that another pool of the scope has, `forbidden`.
    pub async fn create_subnet_pool(&self, caller: &Caller, new: NewSubnetPool) -> Result<SubnetPool> {
        caller.require(Role::Member, "creating a subnet pool")?;
        let id = SubnetPoolId::from_random(rand::random());
        let name = self.name_asked(&new.name, "pool", &id.short())?;
        let v4 = new.ranges.first().is_none_or(|range| range.addr().is_ipv4());
        let min_prefix_len = new.min_prefix_len.unwrap_or(if v4 { 8 } else { 64 });
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let draft = SubnetPool {
            meta,
            ranges: new.ranges.clone(),
            default_prefix_len: new.default_prefix_len.unwrap_or(min_prefix_len),
            min_prefix_len,
            max_prefix_len: new.max_prefix_len.unwrap_or(if v4 { 32 } else { 128 }),
            quota: new.quota,
            scope: None,
            shared: new.shared,
            is_default: new.is_default,
        };
        self.transact(|tx| {
            let mut pool = draft.clone();
            if let Some(reference) = &new.scope {
                pool.scope = Some(self.find_for::<AddressScope>(caller, "scope", reference)?.record.meta.id);
            }
            self.settle_pool(tx, caller, None, &mut pool)?;
            self.count_one_more::<SubnetPool>(tx, caller, POOLS_MAX)?;
            tx.create(&pool);
            Ok(pool)
        })
        .await
    }

    /// Changes a subnet pool. Subnets that were cut stay in it, so its ranges only grow.
    ///
    /// # Errors
    /// `invalid`, `conflict`, `not_found`, `forbidden`, and what `edit` refuses.
    pub async fn update_subnet_pool(
        &self,
        caller: &Caller,
        reference: &str,
        scope: Option<Option<&str>>,
        edit: impl Fn(&mut SubnetPool) -> Result<()>,
    ) -> Result<SubnetPool> {
        self.transact(|tx| {
            let found = self.find_own::<SubnetPool>(caller, reference, "changing a subnet pool")?;
            let mut next = found.record.clone();
            if let Some(scope) = scope {
                let find = |scope: &str| self.find_for::<AddressScope>(caller, "scope", scope);
                next.scope = scope.map(find).transpose()?.map(|s| s.record.meta.id);
            }
            edit(&mut next)?;
            let is_kept = |range: &IpNet| next.ranges.iter().any(|n| n.contains(range));
            if !found.record.ranges.iter().all(is_kept)
                && IpNet::aggregate(&next.ranges) != found.record.ranges
            {
                return Err(Error::invalid("ranges", "a subnet pool's ranges may grow, not shrink"));
            }
            self.settle_pool(tx, caller, Some(&found.record), &mut next)?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// Checks a pool as it shall be. The record of its scope is expected unchanged, so that of two racing pools of one
    /// scope the second one sees the first.
    fn settle_pool(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        before: Option<&SubnetPool>,
        pool: &mut SubnetPool,
    ) -> Result<()> {
        pool.settle().map_err(|e| Error::invalid("ranges", e))?;
        let was = |field: fn(&SubnetPool) -> bool| before.is_some_and(field);
        if pool.shared != was(|p| p.shared) || pool.is_default != was(|p| p.is_default) {
            caller.require(Role::Admin, "sharing a subnet pool or making it the default")?;
        }
        let others = self.store.list::<SubnetPool>();
        let others = || others.iter().map(|p| &p.record).filter(|p| p.meta.id != pool.meta.id);
        if pool.is_default
            && let Some(other) = others().find(|p| p.is_default && p.is_ipv4() == pool.is_ipv4())
        {
            let message = format!("subnet pool {} is the default of its family already", other.meta.name);
            return Err(Error::new(Code::Conflict, message).field("is_default"));
        }
        let Some(scope) = pool.scope else { return Ok(()) };
        let Some(scope) = self.get::<AddressScope>(scope) else {
            return Err(Error::new(Code::NotFound, "the address scope is gone").field("scope"));
        };
        if scope.record.ipv4 != pool.is_ipv4() {
            let message = format!("address scope {} is of the other family", scope.record.meta.name);
            return Err(Error::invalid("scope", message));
        }
        let meets = |p: &&SubnetPool| {
            p.scope == pool.scope && p.ranges.iter().any(|a| pool.ranges.iter().any(|b| overlap(a, b)))
        };
        if let Some(other) = others().find(meets) {
            let message = format!("subnet pool {} of the scope has some of the addresses", other.meta.name);
            return Err(Error::new(Code::Conflict, message).field("ranges"));
        }
        let mut next = scope.record.clone();
        next.meta.touch(self.now());
        tx.update(&scope, &next);
        Ok(())
    }

    /// Subnets that were cut from a pool.
    pub fn subnets_of_pool(&self, pool: SubnetPoolId) -> Vec<(ProjectId, IpNet)> {
        let all = self.store.list::<Subnet>();
        let of_pool = all.iter().filter(|s| s.record.subnet_pool == Some(pool));
        of_pool.map(|s| (s.record.meta.project, s.record.cidr)).collect()
    }

    /// Cuts a subnet from a pool in the caller's transaction; `cidr` is the one wanted, if a certain one is, and `made`
    /// are subnets that the same transaction makes. The pool's record is touched by the first of these, so that of
    /// racing cuts each sees the one before.
    pub(crate) fn cut_subnet(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        asked: &PoolAsked,
        cidr: Option<IpNet>,
        made: &[Subnet],
    ) -> Result<(IpNet, SubnetPoolId)> {
        let found = match &asked.pool {
            Some(reference) => self.find_for::<SubnetPool>(caller, "subnet_pool", reference)?,
            None => {
                let all = self.list::<SubnetPool>(caller);
                let fits = |p: &SubnetPool| p.is_default && p.is_ipv4() != asked.ipv6;
                let default = all.into_iter().find(|p| fits(&p.record));
                default.ok_or_else(|| {
                    Error::new(Code::NotFound, "there is no default subnet pool of the family")
                        .field("subnet_pool")
                })?
            }
        };
        let pool = &found.record;
        let id = pool.meta.id;
        let mut cut = self.subnets_of_pool(id);
        let here = made.iter().filter(|s| s.subnet_pool == Some(id));
        let is_touched = here.clone().next().is_some();
        cut.extend(here.map(|s| (s.meta.project, s.cidr)));
        let taken: Vec<IpNet> = cut.iter().map(|(_, cidr)| *cidr).collect();
        let explain = |error: PoolError| match error {
            PoolError::Exhausted(_) => Error::new(Code::NoCapacity, error).field("subnet_pool"),
            error => Error::invalid("subnet_pool", error),
        };
        let cidr = match cidr {
            Some(cidr) => pool.check_cut(cidr, &taken).map(|()| cidr).map_err(explain)?,
            None => pool.cut(asked.prefix_len, &taken).map_err(explain)?,
        };
        if let Some(limit) = pool.quota {
            let own = cut.iter().filter(|(project, _)| *project == caller.project);
            let used: u64 = own.map(|(_, cidr)| SubnetPool::weight(cidr)).sum();
            let asked = SubnetPool::weight(&cidr);
            if used.saturating_add(asked) > limit {
                let message = format!(
                    "quota of subnet pool {} exceeded: {asked} asked for, {used} of {limit} in use",
                    pool.meta.name
                );
                return Err(Error::new(Code::QuotaExceeded, message).field("subnet_pool"));
            }
        }
        if !is_touched {
            let mut next = pool.clone();
            next.meta.touch(self.now());
            tx.update(&found, &next);
        }
        Ok((cidr, id))
    }

    /// Removes a subnet pool that no subnet was cut from.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_subnet_pool(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<SubnetPool>(caller, reference, "deleting a subnet pool")?;
            let cut = self.subnets_of_pool(found.record.meta.id).len();
            if cut > 0 {
                let message = format!("{cut} subnets were cut from pool {}", found.record.meta.name);
                return Err(Error::new(Code::InUse, message).hint("delete these first"));
            }
            self.count_one_less::<SubnetPool>(tx, found.record.meta.project);
            tx.delete(&found);
            Ok(())
        })
        .await
    }
}
