//! What can be reached from outside, as the model computes it from the records.

use crate::Control;
use model::{
    exposure::{Exposure, ExposureView, exposures},
    floating_ip::FloatingIp,
    id::ProjectId,
    instance::Instance,
    network::Network,
    port::Port,
    record::Record,
    security_group::SecurityGroup,
    subnet::Subnet,
};

impl Control {
    /// Everything of a project that can be reached from outside; of the whole cloud when `None`.
    pub fn exposures(&self, project: Option<ProjectId>) -> Vec<Exposure> {
        let mut all = exposures(&ExposureView {
            instances: &self.records::<Instance>(),
            ports: &self.records::<Port>(),
            networks: &self.records::<Network>(),
            floating_ips: &self.records::<FloatingIp>(),
            subnets: &self.records::<Subnet>(),
            groups: &self.records::<SecurityGroup>(),
        });
        all.retain(|e| project.is_none_or(|p| p == e.project));
        all
    }

    fn records<R: Record>(&self) -> Vec<R> {
        let all = self.store.list::<R>();
        all.iter().map(|s| s.record.clone()).collect()
    }
}
