//! The first records of a cloud: admin project, external network, flavors, and a project to work in.

use crate::{Control, Error, Result, finalize::system_caller, network::NewNetwork, subnet::NewSubnet};
use ipnet::IpNet;
use model::{
    flavor::{Flavor, defaults},
    id::{FlavorId, ProjectId},
    meta::{Labels, Meta},
    network::{External, Network, NetworkKind},
    project::Project,
};

/// Name of the project that owns what belongs to the cloud.
pub const ADMIN_PROJECT: &str = "admin";
/// Name of the project that commands use unless told otherwise.
pub const DEFAULT_PROJECT: &str = "default";
/// Name of the first external network.
pub const DEFAULT_EXTERNAL: &str = "external";

/// What a new cloud starts with.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Range of floating IPs and router addresses, routed by this host.
    pub external_v4: IpNet,
    /// The same for IPv6.
    pub external_v6: Option<IpNet>,
}

impl Control {
    /// Makes what is missing of the first records. Doing it twice is doing it once.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn bootstrap(&self, beginning: &Beginning) -> Result<()> {
        let named = |name: &str| {
            let all = self.store.list::<Project>();
            all.iter().find(|p| p.record.meta.name.as_str() == name).map(|p| p.record.meta.id)
        };
        let admin = match named(ADMIN_PROJECT) {
            Some(id) => id,
            None => self.begin_project(ADMIN_PROJECT).await?,
        };
        self.begin_identity().await?;
        if self.default_external().is_none() {
            self.begin_external(admin, beginning).await?;
        }
        if self.store.list::<Flavor>().is_empty() {
            self.begin_flavors(admin).await?;
        }
        if named(DEFAULT_PROJECT).is_none() {
            let caller = system_caller(admin);
            self.create_project(&caller, DEFAULT_PROJECT, "", Labels::new()).await?;
        }
        Ok(())
    }

    async fn begin_project(&self, name: &str) -> Result<ProjectId> {
        let id = ProjectId::from_random(rand::random());
        let name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let project = Project::new(id, name, Labels::new(), self.now());
        self.transact(|tx| {
            tx.create(&project);
            self.add_default_group(tx, id);
            Ok(())
        })
        .await?;
        Ok(id)
    }

    async fn begin_external(&self, admin: ProjectId, beginning: &Beginning) -> Result<()> {
        let caller = system_caller(admin);
        let network: Network = match self.find::<Network>(&caller, DEFAULT_EXTERNAL) {
            Ok(found) => found.record.clone(),
            Err(_) => {
                let kind =
                    NetworkKind::External(External { interface: None, masquerade: true, is_default: false });
                self.create_network(
                    &caller,
                    NewNetwork {
                        description: "floating IPs, routed by this host".into(),
                        port_security: false,
                        ..NewNetwork::of_kind(DEFAULT_EXTERNAL, kind)
                    },
                )
                .await?
            }
        };
        for (name, range) in
            [("external-v4", Some(beginning.external_v4)), ("external-v6", beginning.external_v6)]
        {
            let Some(cidr) = range else { continue };
            let there = self.subnets_of(network.meta.id).iter().any(|s| s.record.cidr == cidr);
            if !there {
                self.create_subnet(
                    &caller,
                    NewSubnet {
                        name: name.into(),
                        network: network.meta.id.to_string(),
                        cidr: cidr.to_string(),
                        ..NewSubnet::default()
                    },
                )
                .await?;
            }
        }
        // Only a complete external network becomes the default.
        self.transact(|tx| {
            let found = self.find::<Network>(&caller, &network.meta.id.to_string())?;
            let mut next = found.record.clone();
            if let NetworkKind::External(external) = &mut next.kind {
                external.is_default = true;
            }
            tx.update(&found, &next);
            Ok(())
        })
        .await
    }

    async fn begin_flavors(&self, admin: ProjectId) -> Result<()> {
        self.transact(|tx| {
            for (name, size) in defaults() {
                let name = name.parse().map_err(|e| Error::invalid("name", e))?;
                let meta = Meta::new(FlavorId::from_random(rand::random()), admin, name, self.now());
                tx.create(&Flavor {
                    meta,
                    size,
                    public: true,
                    projects: std::collections::BTreeSet::new(),
                    flavorid: None,
                    extra_specs: std::collections::BTreeMap::new(),
                });
            }
            Ok(())
        })
        .await
    }
}
